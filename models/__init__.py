"""Networks, proposers and their arithmetic. Nothing here opens a file, parses a command line or knows Ray."""
