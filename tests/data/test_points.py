"""`data=points`: points of tables and arrays, in units of their own, all faults told at once."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from scipy.integrate import quad

from odenet_cli.data import points
from odenet_cli.data.common import point_benchmarks
from odenet_cli.data.common import points as reader
from odenet_cli.data.common.splits import BatchSpec
from odenet_cli.data.common.units import Units
from odenet_cli.errors import RequestError
from odenet_cli.models.cnf import ContinuousFlow
from odenet_cli.ode import Adaptive
from odenet_cli.tasks import likelihood

SPEC = BatchSpec(batch_size=8, eval_batch_size=100, seed=0, device=torch.device("cpu"), dtype=torch.float64)
TIGHT = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9)


def normal(n=40, d=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) * 10.0 ** np.arange(d) + 5


def text(x, names=None, mark=","):
    rows = [mark.join(map(repr, row)) for row in x.tolist()]
    return "\n".join([*([mark.join(names)] if names else []), *rows]) + "\n"


@pytest.fixture
def source(tmp_path):
    def make(content, name="own.csv", **options):
        path = tmp_path / name
        path.write_text(content) if isinstance(content, str) else path.write_bytes(content)
        return points.Source(path=str(path), **options)

    return make


def raw(data, units=None):
    """All points of all splits, as the file has them, sorted."""
    units = units or data.test.distribution
    x = units.restored(torch.cat([split.rows[0] for split in (data.train, data.valid, data.test)]))
    return x[x[:, 0].argsort()].numpy()


WAYS = {
    "named": lambda x: ("a.csv", text(x, ["a", "b", "c"])),
    "bare": lambda x: ("a.csv", text(x)),
    "blanks": lambda x: ("a.txt", "# made by savetxt yesterday\n" + text(x, mark="   ").replace("\n", "  \n")),
    "tabs": lambda x: ("a.tsv", text(x, ["a", "b", "c"], "\t")),
    "decimal commas": lambda x: ("a.csv", text(x, ["a", "b", "c"], ";").replace(".", ",")),
    "bare decimal commas": lambda x: ("a.csv", text(x, None, ";").replace(".", ",")),
    "words and a row number": lambda x: (
        "a.csv",
        "id,a,kind,b,c\n" + "".join(f"{n},{r[0]!r},yes,{r[1]!r},{r[2]!r}\n" for n, r in enumerate(x.tolist())),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_points_of_a_text_are_read_as_they_are(source, way):
    x = normal()
    name, content = WAYS[way](x)
    data = source(content, name).load(SPEC)
    assert (data.shape, data.task, data.record["sizes"]) == ((3,), "likelihood", {"train": 32, "valid": 4, "test": 4})
    assert np.allclose(raw(data), x[x[:, 0].argsort()], rtol=1e-12)
    names = ["a", "b", "c"] if "bare" not in way and way != "blanks" else ["x1", "x2", "x3"]
    assert data.record["columns"] == names
    train = data.train.rows[0]
    assert train.mean(0).abs().max() < 1e-12
    assert (train.std(0, correction=0) - 1).abs().max() < 1e-12


def test_parquet_and_arrays_hold_the_same_points(tmp_path):
    x = normal()
    pl.DataFrame(x, schema=["a", "b", "c"]).write_parquet(tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", x.astype(np.float32))
    np.savez(tmp_path / "a.npz", x=x)
    for name, close in {"a.parquet": 1e-12, "a.npy": 1e-5, "a.npz": 1e-12}.items():
        data = points.Source(path=str(tmp_path / name)).load(SPEC)
        assert np.allclose(raw(data), x[x[:, 0].argsort()], rtol=close), name


def test_another_sheet_of_a_workbook(tmp_path):
    """What is said of the first one names the others."""
    pytest.importorskip("fastexcel")
    openpyxl = pytest.importorskip("openpyxl")
    book, path, x = openpyxl.Workbook(), tmp_path / "own.xlsx", normal()
    book.active.append(["read me"])
    book.active.append(["please"])
    for row in (["a", "b", "c"], *x.tolist()):
        (book["data"] if "data" in book.sheetnames else book.create_sheet("data")).append(row)
    book.save(path)
    found = raw(points.Source(path=str(path), sheet="data").load(SPEC))
    assert found == pytest.approx(x[x[:, 0].argsort()])
    with pytest.raises(RequestError, match=r"has 0 columns of numbers(.|\n)*data\.sheet=NAME\) data"):
        points.Source(path=str(path)).load(SPEC)


def test_dates_are_no_coordinates(tmp_path):
    """Of a file whose columns have types; days since 1970 were one."""
    path, x = tmp_path / "own.parquet", normal(d=2)
    when = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 2, 9), eager=True)
    pl.DataFrame({"when": when, "a": x[:, 0], "b": x[:, 1]}).write_parquet(path)
    record = points.Source(path=str(path)).load(SPEC).record
    assert record["columns"] == ["a", "b"]
    assert any(note.startswith("ignored, dates or times: when") for note in record["table"])
    with pytest.raises(RequestError, match="when='2020-01-01' is not a finite number"):
        points.Source(path=str(path), columns=["when", "a"]).load(SPEC)


def test_which_points_are_held_out_follows_from_the_numbers_alone(source):
    x = normal()
    first, turned = source(text(x, ["a", "b", "c"])), source(text(x[::-1, ::-1], ["c", "b", "a"]), "turned.csv")
    ours, theirs = first.load(SPEC), turned.load(SPEC)
    for split in ("train", "valid", "test"):
        a, b = (getattr(data, split).rows[0].sort(0).values for data in (ours, theirs))
        assert torch.allclose(a, b.flip(1), atol=1e-12)
    assert ours.record["content"] == theirs.record["content"]
    assert ours.record["sha256"] != theirs.record["sha256"]


def test_the_splits_that_are_given_are_taken(source, tmp_path):
    x = normal(30, 2)
    np.savez(tmp_path / "three.npz", x_train=x[:20], x_val=x[20:24], x_test=x[24:])
    np.savez(tmp_path / "two.npz", train=x[:20], test=x[20:])
    words = ["train"] * 20 + ["val"] * 4 + ["Test"] * 6
    column = "a,b,part\n" + "".join(f"{a!r},{b!r},{word}\n" for (a, b), word in zip(x.tolist(), words))
    three, two = (points.Source(path=str(tmp_path / f"{name}.npz")) for name in ("three", "two"))
    for made in (three, source(column, split="part")):
        data = made.load(SPEC)
        assert [split.size for split in (data.train, data.valid, data.test)] == [20, 4, 6]
        assert np.allclose(data.test.distribution.restored(data.test.rows[0]), x[24:])
    data = two.load(SPEC)
    assert [split.size for split in (data.train, data.valid, data.test)] == [17, 3, 10]
    in_order = source(text(x, ["a", "b"]), split="order").load(SPEC)
    assert np.allclose(in_order.test.distribution.restored(in_order.test.rows[0]), x[27:])
    assert np.allclose(in_order.test.distribution.restored(in_order.valid.rows[0]), x[24:27])


def test_constant_columns_are_left_out_and_dependent_ones_warned_of(source):
    x = normal(60, 2)
    rows = [[a, b, 7.0, a + 2 * b, n % 2] for n, (a, b) in enumerate(x.tolist())]
    record = source(text(np.array(rows), ["a", "b", "flat", "sum", "kind"])).prepare()
    assert (record["columns"], record["left_out"]) == (["a", "b", "sum", "kind"], ["flat"])
    assert "kind (2) of 60 points" in record["warning"]
    assert "a, b, sum depend on each other linearly" in record["warning"]
    assert source(text(x, ["a", "b"])).prepare()["warning"] is None


FAULTY = """a,b
1,2
x,3
4,NA
1,2
5,1e200
6
7,8
"""
WRONG = {
    "nothing named so": ("a,b\n1,2\n", {"columns": ["c"]}, "no column is named c (data.columns). Available: a, b"),
    "no split so": ("a,b\n1,2\n", {"split": "c"}, "no column is named c (data.split)"),
    "no such part": ("a,b\n1,new\n2,train\n", {"split": "b"}, "line 2: b='new' is not one of train, valid, test"),
    "no test": ("a,b\n1,train\n2,train\n", {"split": "b"}, "no row has b=test"),
    "all of the test dropped": (
        "a,b\n1,train\n2,train\n,test\n",
        {"split": "b", "incomplete": "drop"},
        "no row has b=test",
    ),
    "two of a name": ("a,a\n1,2\n", {"columns": ["a"]}, "line 1: columns 1 and 2 are both named a. Rename"),
    "without a name": (
        "a,b,,\n1,2,,7\n3,4,,7\n",
        {},
        "line 2: column 4 of 4 has no name, and does not contain row numbers",
    ),
    "no numbers": ("a,b\nx,y\n", {}, "has 0 columns of numbers (a, b), and a flow can have 1 to 64"),
    "too many": (text(normal(3, 65)), {}, "has 65 columns of numbers"),
    "half a name": ("0.5,abc\n1,2\n", {}, "line 1: '0.5,abc' is neither column names nor a point"),
    "all the same": ("a,b\n" + "1,2\n" * 30, {"repeats": "keep"}, "every column is constant in the training points"),
    "too few": ("a,b\n1,2\n3,4\n", {}, "has 2 points, and data.validation=0.1 with data.test=0.1 leave fewer than two"),
    "again": (
        "a,b\n1,2\n3,4\n1,2\n",
        {},
        "line 4: this repeats the point of line 2. Delete it, or set data.repeats=drop",
    ),
    "missing": ("a,b\n1,\n3,4\n", {}, "line 2: b is missing. Fill it in, or ignore such rows: data.incomplete=drop"),
    "infinite": ("a,b\n1,inf\n3,4\n", {}, "line 2: b='inf' is not a finite number"),
    "a pickle": (np.array([{}], dtype=object).dumps(), {"name": "a.npy"}, "is not a NumPy array of numbers"),
    "an option": ("a,b\n1,2\n", {"repeats": "twice"}, "data.repeats=twice is not known. Available: refuse, drop, keep"),
    "a share": ("a,b\n1,2\n", {"test": 1.5}, "data.test=1.5 is out of range"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_with_what_mends_it(source, wrong):
    content, options, part = WRONG[wrong]
    with pytest.raises(RequestError) as refused:
        source(content, **options).prepare()
    assert part in str(refused.value)


def test_all_faults_are_told_at_once_and_the_options_mend_them(source):
    with pytest.raises(RequestError) as refused:
        source(FAULTY).prepare()
    told = str(refused.value)
    assert "has 5 errors of 5 kinds" in told
    for line, what in {
        3: "a='x' is not a finite",
        4: "b is missing",
        5: "of line 2",
        6: "beyond",
        7: "1 columns",
    }.items():
        assert f"line {line}: {what.split()[0]}" in told or (f"line {line}: " in told and what in told), (line, told)
    mended = FAULTY.replace("1e200", "9").replace("6\n7", "6,0\n7")
    record = source(mended, missing="x", incomplete="drop", repeats="drop").prepare()
    assert sum(record["sizes"].values()) == 4
    assert "2 rows with a missing coordinate ignored" in record["table"]
    assert "1 repeated points ignored" in record["table"]


def test_arrays_that_are_no_points_are_refused(tmp_path):
    for number, (arrays, part) in enumerate(
        [
            ({"x": np.zeros((2, 3, 4))}, r"x is an array \(2, 3, 4\) of float64; points must be numbers"),
            ({"a": np.zeros((2, 3)), "b": np.zeros((2, 3))}, "contains the arrays a, b. Save the points as one, x"),
            ({"train": np.zeros((2, 3)), "test": np.zeros((2, 4))}, "its arrays have 3 and 4 columns"),
            (
                {name: np.zeros((2, 3)) for name in ("train", "val", "valid", "test")},
                "the arrays train, val, valid, test",
            ),
            ({"x": np.array(["a"])}, "points must be numbers"),
            ({"x": np.zeros((0, 3))}, "contains no points"),
        ]
    ):
        np.savez(tmp_path / f"{number}.npz", **arrays)
        with pytest.raises(RequestError, match=part):
            points.Source(path=str(tmp_path / f"{number}.npz")).prepare()
    with pytest.raises(RequestError, match="6 files match, but arrays are read from a single file"):
        points.Source(path=str(tmp_path / "*.npz")).prepare()
    np.save(tmp_path / "nan.npy", np.array([[1.0, 2.0], [np.nan, 3.0], [np.inf, 1.0]]))
    with pytest.raises(
        RequestError,
        match=r"has 2 errors of 2 kinds\.\n  row 2: x1 is missing.*\n.*row 3: x1='inf'|"
        r"has 2 errors of 2 kinds\.\n  row 3: x1='inf'.*\n.*row 2: x1 is missing",
    ):
        points.Source(path=str(tmp_path / "nan.npy")).prepare()


def test_another_file_is_measured_in_the_units_of_the_run(source):
    x = normal()
    record = source(text(x, ["a", "b", "c"])).prepare()
    new = normal(20, 3, seed=1) * 3
    other = source(text(new[:, [2, 0, 1]], ["c", "a", "b"]), "other.csv")
    data = other.in_units_of(record).load(SPEC)
    assert np.allclose(raw(data, Units.of(record)), new[new[:, 0].argsort()], rtol=1e-12)
    with pytest.raises(RequestError, match=r"no column is named c"):
        source(text(x[:, :2], ["a", "b"]), "narrow.csv").in_units_of(record).load(SPEC)
    with pytest.raises(RequestError, match=r"run\.json: data\.mean is \[0\]"):
        Units.of({**record, "mean": [0]})


class Linear(torch.nn.Module):
    """dz/dt = A z + sin z: no closed form, so that the quadrature is the reference."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([[0.7]], dtype=torch.float64))

    def forward(self, t, z):
        return z @ self.a.T + torch.sin(3 * z)


def test_in_the_datas_units_the_density_integrates_to_one(source):
    units = source(text(normal(50, 1) * 30 + 400, ["a"])).load(SPEC).test.distribution
    flow = ContinuousFlow(Linear(), (1,), TIGHT).eval()

    @torch.no_grad()
    def density(value):
        x = units.scaled(torch.tensor([[value]], dtype=torch.float64))
        return float(flow.log_prob(x) - units.log_scale)

    places = units.restored(torch.linspace(-14, 14, 6001, dtype=torch.float64)[:, None])
    with torch.no_grad():
        p = (flow.log_prob(units.scaled(places)) - units.log_scale).exp()
    assert float(torch.trapezoid(p, places[:, 0])) == pytest.approx(1, abs=1e-6)
    assert density(405.0) == pytest.approx(math.log(p_at(flow, units, 405.0)), abs=1e-6)


def p_at(flow, units, value, h=1e-4):
    """The density by the distribution function's slope: z is monotone in x in one dimension."""
    ends = units.scaled(torch.tensor([[value - h], [value + h]], dtype=torch.float64))
    with torch.no_grad():
        z = flow.to_noise(ends)
    total, _ = quad(lambda u: math.exp(-u * u / 2) / math.sqrt(2 * math.pi), float(z[0]), float(z[1]))
    return total / (2 * h)


def test_other_units_move_the_score_by_the_logarithm_of_their_size(source):
    x, factors, shifts = normal(60), np.array([2.0, 1e-3, 50.0]), np.array([3.0, -7.0, 1e3])
    flow = ContinuousFlow(Three(), (3,), TIGHT).eval()
    scores = []
    for name, values in {"a.csv": x, "b.csv": x * factors + shifts}.items():
        data = source(text(values, ["a", "b", "c"]), name, split="order").load(SPEC)
        with torch.no_grad():
            scores.append(likelihood.loss(flow, next(data.test.epoch(0)))[1])
    first, second = scores
    assert second["nll"].item() == pytest.approx(first["nll"].item(), abs=1e-9)
    moved = second["nll_data"].item() - first["nll_data"].item()
    assert moved == pytest.approx(np.log(factors).sum(), abs=1e-9)
    sd = torch.from_numpy(x[:48]).std(0, correction=0)
    assert (first["nll_data"] - first["nll"]).item() == pytest.approx(float(sd.log().sum()), abs=1e-9)


class Three(torch.nn.Module):
    """dz/dt = A z."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = torch.nn.Parameter(0.3 * torch.randn(3, 3, dtype=torch.float64))

    def forward(self, t, z):
        return z @ self.a.T


def test_the_five_tables_are_known_by_name_or_shape(tmp_path):
    find = point_benchmarks.find
    assert "FFJORD's test NLL is 10.43 nat, standardised" in find(tmp_path / "miniboone" / "data.npy", 100, 43)
    assert find(tmp_path / "data.npy", 36_488, 43).startswith("MINIBOONE: ")
    assert "-157.40 nat, in the data's units" in find(tmp_path / "bsds300.npz", 10, 63)
    assert find(tmp_path / "power.csv", 2_049_280, 5) is None
    assert find(tmp_path / "data.npy", 100, 43) is None


def test_points_that_are_there_again_are_found_by_their_numbers():
    """As polars has them, which takes three times the memory of the points for it."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({name: rng.integers(-3, 3, 500) * 0.1 for name in "abc"})
    frame = frame.with_columns(pl.when(pl.col("a") > 0.15).then(None).otherwise("a").alias("a"), pl.col("b") * -1.0)
    whole = frame["a"].is_not_null()
    first = frame.select(pl.struct(pl.all()).is_first_distinct()).to_series()
    assert reader._again(frame, whole).to_list() == (whole & ~first).arg_true().to_list()


def test_dates_beside_points_are_ignored(tmp_path):
    days = [f"{n % 28 + 1:02d}.{n // 28 + 1:02d}.2021" for n in range(60)]
    rows = [f"{day},{math.sin(n):.6f},{2000 + n}" for n, day in enumerate(days)]
    (tmp_path / "dated.csv").write_text("\n".join(["day,x,year", *rows]))
    record = points.Source(path=str(tmp_path / "dated.csv")).prepare()
    assert record["columns"] == ["x", "year"]
    assert any(note.startswith("ignored, dates or times: day") for note in record["table"])
