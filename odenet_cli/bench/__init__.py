"""The speed of this machine: our solver side by side with other libraries on the same mathematical work.

    workloads/   what is measured, one a file: the module's name is the word of `odenet bench`
    peers/       who solves it, one library a file; they are imported only where they are used
    workload.py  the skeleton of w1 to w4: a vector field, a reference, and the modes of each library
    work.py      what is timed, and who does it     measure.py   agreement, counts and times
    table.py     Markdown and JSON                  machine.py   what a table must state about where it was made
    problems.py  initial value problems             mnist.py     the ODE-Net of w1 and train, and its parts

Before anything is timed, each subject's results are compared with a far finer solve; one that is off is not timed.
"""
