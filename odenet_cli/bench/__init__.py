"""The speed of this machine: our solver side by side with other libraries on the same mathematical work.

    workloads/   what is measured, one a file: the module's name is the word of `odenet bench`
    libraries/   who solves it, one a file; they are imported only where they are used
    subject.py   one contestant and its work        measure.py   agreement, counts and times
    table.py     Markdown and JSON                  machine.py   what a table must say about where it was made

Before anything is timed, each subject's results are compared with a far finer solve; one that is off is not timed.
"""
