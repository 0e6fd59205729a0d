"""The work of each command, one file a command and named for it.

`app` imports a file only when its command runs. The files that need the worker package defer that import too, because a
producer's host may not have it.
"""
