"""The command line, a file a command group.

A command parses, calls one function of the library, and prints. What a command needs is imported
when it runs, so that ``seatrial --help`` answers in a third of a second.
"""
