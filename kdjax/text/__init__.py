"""Where raw text comes from: files, archives, records, data sets."""
