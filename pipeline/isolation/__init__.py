"""Calls in child processes with limits on memory and time: untrusted input cannot crash or block the caller."""
