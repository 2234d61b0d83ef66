"""One benchmark family a file: which files, which preprocessing, which averages."""
