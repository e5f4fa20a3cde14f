"""Students that leave: a finished run as a directory that other libraries load, and on the Hub."""
