"""Results of studies as files: the types of results.json and of what it is made from."""
