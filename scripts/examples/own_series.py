"""Train a latent ODE on series of your own, from a table: python own_series.py [FIGURE]

The table is written by this program, so that it runs as it stands; put the path of yours in its place.
"""

import csv
import math
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def write_table(path, series=60, points=30):
    """Write damped oscillations of random phase at irregular times: columns series, time, position."""
    draw = random.Random(0)
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["series", "time", "position"])
        for i in range(series):
            phase = draw.uniform(0, 2 * math.pi)
            for t in sorted(draw.uniform(0, 10) for _ in range(points)):
                position = math.exp(-0.1 * t) * math.cos(2 * t + phase)
                table.writerow([f"s{i}", f"{t:.4f}", f"{position + draw.gauss(0, 0.02):.4f}"])


def main(figure="own_series.png", steps=300):
    with tempfile.TemporaryDirectory() as folder:
        table, run = Path(folder, "table.csv"), Path(folder, "run")
        write_table(table)
        # The first half of each series is seen, the rest predicted; a fifth of the series is held out.
        command = [sys.executable, "-m", "odenet_cli", "train", "model=latent_ode", "data=table", f"data.path={table}"]
        subprocess.run([*command, f"trainer.steps={steps}", f"hydra.run.dir={run}"], check=True)
        shutil.copy(run / "figures" / "series.png", figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
