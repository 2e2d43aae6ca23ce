"""Benchmarks on this machine: our solver beside other libraries on the same mathematical work.

    workloads/   the workloads, one per file: the module's name is the argument of `odenet bench`
    peers/       the libraries, one per file; they are imported only where they are used
    workload.py  the common part of w1 to w4: a vector field, a reference, and the modes of each library
    work.py      timed work and its subjects        measure.py   agreement, counts and times
    table.py     Markdown and JSON                  machine.py   hardware and versions, stated by every table
    problems.py  initial value problems             mnist.py     the ODE-Net of w1 and train, and its parts

Before timing, the results of each subject are compared with a far finer solve; a subject with wrong results is not
timed.
"""
