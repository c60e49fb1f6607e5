"""The sidecar: bulkops as the backend of a desktop application, which starts it, owns it and may die at any time.

What comes in: a data directory and lines of JSON on stdin; what goes out: a server on loopback, a few lines
of JSON on stdout and an exit code. Neither a host that dies, nor one that reads nothing any more, may leave
a process, a lock or a secret behind.
"""
