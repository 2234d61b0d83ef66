"""Calls in child processes with limits on memory and time: bytes of strangers cannot kill or stop who reads them."""
