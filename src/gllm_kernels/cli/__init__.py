"""The command line: text on stdout, everything about it on stderr.

Exit status: 0 done, 1 a defect of this program, 2 an error of the user or the machine,
130 interrupted, 141 the reader of stdout went away.
"""
