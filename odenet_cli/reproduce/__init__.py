"""Rebuild the tables and figures of the paper, and compute their numbers again: `odenet reproduce`, `odenet verify`.

An *item* is one table or figure: `table1` is `conf/experiment/table1.yaml`, whose section `reproduce.table1` says what
to run, what to measure on the trained networks and what to expect; `report/items/table1.py` makes the page of it.

A *preset* is how much of it: `quick` (minutes on a CPU), `cpu`, `day` and `paper` (the full length, on a GPU). It sets
the overrides that all runs have, such as the data and the number of epochs, and how many seeds there are.

A *part* is a group of runs with overrides of its own, such as the comparison of networks or the timing of their steps.
It has *rows*, which are the lines of the table: a name and the overrides of that line.

A *cell* is one run: one row, one seed, one value of each comma list. It is an ordinary `odenet train` in the folder
`runs/cells/HASH`, where the hash covers the whole config but for names, places, device and logging. So two items share
a cell that computes the same, and a cell is found again whatever asked for it.

A *plan* is the list of all cells of an item in a preset (`plan.py`). `odenet reproduce table1 --preset day` makes the
plan and goes through three *stages* (`stages.py`). It runs the cells, in processes of their own side by side
(`processes.py`) or by one of Hydra's launchers (`launcher.py`), while a board shows what is done, running and left
(`board.py`). It makes the *measurements*: numbers computed on the trained networks, where the experiment asks for
them (`analysis/measures/`). It writes `results/table1/day.*`; a page of fewer seeds or rows, or of cells that failed,
takes the place of no fuller or committed one and goes to `runs/partial` (`destination.py`).

Stopped at any moment, it *resumes* by the same command: a finished cell is not run again, an unfinished one goes on
from its checkpoint, and a row of a measurement that is in the run's folder is not measured again.

A *kept cell* is a finished cell committed in `results/cells/HASH`: config, record, log and weights, without names and
places of the machine, and the SHA-256 of each file (`kept_cells.py`). `--keep` writes them. On another machine
`odenet reproduce` copies them into `runs/cells` and does not train them again.

`odenet verify table1 --preset day` takes the committed page and the kept cells, and *verifies* three things. The page
follows from the records; each record follows from its log; and what the record says of the weights (test error,
function evaluations, memory) comes out again when it is computed on this machine, up to what rounding explains
(`verification.py` for the item, `recompute.py` for one cell). No network is trained to its end, unless
`--retrain HASH` asks for it; a cell that only times steps takes its first steps again.
"""
