"""Tables of features: rows are samples, a column is predicted, words are features or classes, and rows come back."""

import datetime
import json
import math

import numpy
import polars
import pytest
import torch
from runs_kit import train_run
from table_kit import HOW, write

from odenet_cli import data
from odenet_cli.commands import eval as eval_command
from odenet_cli.commands import predict
from odenet_cli.errors import RequestError

RNG = numpy.random.default_rng(0)
KINDS = ["Adelie", "Chin strap", "Gentoo"]
ROWS = [
    {
        "id": n + 1,
        "length": round(float(5 * (n % 3) + RNG.normal()), 3),
        "island": "AB"[n % 2],
        "note": f"bird {n}",
        "species": KINDS[n % 3],
        "price": round(float(10 * (n % 3) + RNG.normal()), 2),
        "wings": 1 + n % 4,
    }
    for n in range(60)
]


def text(rows=ROWS, without=(), **cells):
    """The rows as CSV; `cells` replace those of the first row."""
    rows = [{**rows[0], **cells}, *rows[1:]]
    names = [name for name in rows[0] if name not in without]
    return "\n".join([",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)])


def load(path, run=None, **options):
    return data.load("features", {"path": str(path), **options}, run=run, **HOW)


def whole(found):
    return [torch.cat(rows) for rows in zip(found.train.rows, found.valid.rows, found.test.rows, strict=True)]


def test_columns_are_features_and_words_are_0_and_1(tmp_path):
    path = write(tmp_path, text())
    found = load(path, y="species")
    assert found.record["columns"] == ["length", "island=A", "island=B", "price", "wings"]
    assert (found.shape, found.classes, found.task) == ((5,), 3, "classify")
    assert found.record["classes"] == KINDS
    assert [found.train.size, found.valid.size, found.test.size] == [49, 5, 6]
    x, y = whole(found)
    x = x * torch.tensor(found.record["x_sd"]) + torch.tensor(found.record["x_mean"])
    places = data.own_samples("features", {"path": str(path), "y": "species"}, found.record).row
    expected = [[ROWS[n]["length"], n % 2 == 0, n % 2 == 1, ROWS[n]["price"], 1 + n % 4] for n in places.tolist()]
    assert torch.allclose(x, torch.tensor(expected, dtype=x.dtype), atol=1e-6)
    assert y.tolist() == [n % 3 for n in places.tolist()]
    assert sorted(places.tolist()) == [*range(60)]
    told = "\n".join(found.record["table"])
    assert "ignored, row numbers: id; to include it, set data.x=[…]" in told
    assert "ignored, 60 different words: note" in told


def test_the_same_rows_are_held_out_as_of_arrays(tmp_path):
    x = numpy.array([[row["length"], row["price"]] for row in ROWS])
    numpy.savez(tmp_path / "a.npz", x=x, y=numpy.array([row["species"] for row in ROWS]))
    arrays = data.load("arrays", {"path": str(tmp_path / "a.npz")}, **HOW)
    found = load(write(tmp_path, text()), y="species", x=["length", "price"])
    for part in ("train", "valid", "test"):
        pairs = zip(getattr(arrays, part).rows, getattr(found, part).rows, strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_what_y_is(tmp_path):
    path = write(tmp_path, text())
    tasks = {}
    for y in ("species", "price", "wings", "island"):
        tasks[y] = (found := load(path, y=y)).task
        assert found.record["target"] == [y]
    assert tasks == {"species": "classify", "price": "regression", "wings": "classify", "island": "classify"}
    assert load(path, y="wings").record["classes"] == ["1", "2", "3", "4"]
    both = load(path, y=["price", "wings"], task="regression")
    assert (both.task, both.classes) == ("regression", 2)
    with pytest.raises(RequestError, match=r"id holds whole numbers, 1 to 60, 60 different ones. Set data.task"):
        load(path, y="id")
    assert load(path, y="id", task="regression").task == "regression"


def test_a_column_says_what_is_held_out(tmp_path):
    part = ["train", "test", "val"]
    lines = text().splitlines()
    lines = [f"{lines[0]},part", *(f"{line},{part[n % 3]}" for n, line in enumerate(lines[1:]))]
    found = load(path := write(tmp_path, "\n".join(lines)), y="wings", split="part")
    assert [found.train.size, found.valid.size, found.test.size] == [20, 20, 20]
    assert "part=test" not in found.record["columns"]
    options = {"path": str(path), "y": "wings", "split": "part"}
    places = data.own_samples("features", options, found.record).row
    assert [n % 3 for n in places.tolist()] == [0] * 20 + [2] * 20 + [1] * 20
    assert whole(found)[1].tolist() == [n % 4 for n in places.tolist()]


def test_a_column_of_splits_is_no_feature(tmp_path):
    """Its words were features of 0 and 1."""
    lines = text().splitlines()
    lines = [f"{lines[0]},part", *(f"{line},{['train', 'Test', 'val '][n % 3]}" for n, line in enumerate(lines[1:]))]
    found = load(path := write(tmp_path, "\n".join(lines)), y="wings")
    assert not [name for name in found.record["columns"] if name.startswith("part")]
    says = "part seems to name the splits, and is ignored; to use it, set data.split=part"
    assert says in found.record["table"]
    assert "part=val" in load(path, y="wings", x=["length", "part"]).record["columns"]


def test_numbers_named_as_a_column_of_the_predictions_are_refused(tmp_path):
    for name in ("sample", "split"):
        content = text().replace("price", name, 1)
        with pytest.raises(RequestError, match=f"={name}: predictions have a column of that name"):
            load(write(tmp_path, content), y=name)
    content = text().replace("length", "price_predicted", 1)
    with pytest.raises(RequestError, match=r"data\.y=price_predicted"):
        load(write(tmp_path, content), y=["price", "price_predicted"], task="regression")
    assert load(write(tmp_path, text().replace("species", "split", 1)), y="split").classes == 3  # a label there


@pytest.mark.parametrize("words", [["S", "M", "XL", "2XL"], ["2XL", "3XL", "2XL", "XL", "S"], ["small", "big", "2x"]])
def test_words_with_a_digit_are_words(tmp_path, words):
    rows = [{**row, "size": words[n % len(words)]} for n, row in enumerate(ROWS)]
    found = load(path := write(tmp_path, text(rows)), y="species")
    assert found.record["columns"][-len({*words}) :] == [f"size={word}" for word in sorted({*words})]
    assert load(path, y="size").task == "classify"


@pytest.mark.parametrize("cell", ["{n}", "{n} kg", "{n}.5"])
def test_a_word_among_numbers_is_told(tmp_path, cell):
    rows = [{**row, "weight": cell.format(n=n)} for n, row in enumerate(ROWS)]
    rows[7]["weight"] = "broken"
    with pytest.raises(RequestError, match="line 9: weight='broken' is not a finite number"):
        load(write(tmp_path, text(rows)), y="species")


DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(n // 3) for n in range(60)]


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d/%m/%Y", "%d %b %Y", "%H:%M"])
def test_dates_are_no_words(tmp_path, form):
    """Each would be a column of 0 and 1: they are left out, and refused where they are asked for."""
    rows = [{**row, "day": day.strftime(form)} for row, day in zip(ROWS, DAYS)]
    path = write(tmp_path, text(rows))
    record = load(path, y="price").record
    assert "day" not in " ".join(record["columns"])
    assert "ignored, dates or times: day; to include it, write it as days since the first" in record["table"]
    for options in ({"y": "price", "x": ["day", "length"]}, {"y": "day"}):
        key = "x" if "x" in options else "y"
        with pytest.raises(RequestError, match=rf"day holds dates or times \('.*'\)\. .* remove it from data\.{key}\."):
            load(path, **options)


def test_dates_that_are_stored_as_dates_are_refused_too(tmp_path):
    polars.DataFrame(ROWS).with_columns(day=polars.Series(DAYS)).write_parquet(tmp_path / "a.parquet")
    for options in ({"y": "price", "x": ["day", "length"]}, {"y": "day"}):
        with pytest.raises(RequestError, match="day holds dates or times"):
            load(tmp_path / "a.parquet", **options)


@pytest.mark.parametrize("words", [("18-25", "26-40"), ("16:9", "4:3"), ("2019-20", "2020-21"), ("1-2", "3-1")])
def test_words_that_look_like_dates_are_words(tmp_path, words):
    path = write(tmp_path, text([{**row, "kind": words[n % 2]} for n, row in enumerate(ROWS)]))
    assert f"kind={words[0]}" in load(path, y="price").record["columns"]


def test_truth_in_another_spelling_is_what_the_run_had(tmp_path):
    def table(false, true, name):
        rows = [{**row, "wild": (false, true)[n // 3 % 2]} for n, row in enumerate(ROWS)]
        return write(tmp_path, text(rows), name)

    for y in ("species", "wild"):  # the words of a feature, and the classes
        run = load(own := table("false", "true", "own.csv"), y=y).record
        assert run["columns"][-2:] == ["wild=false", "wild=true"] or run["classes"] == ["false", "true"]
        for n, spelled in enumerate([("FALSE", "TRUE"), ("False", "True")]):
            pairs = zip(whole(load(own, run=run)), whole(load(table(*spelled, f"{n}.csv"), run=run)), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


def test_names_of_columns_may_be_numbers(tmp_path):
    """Spectra: it was refused with advice for times."""
    lines = [f"{n / 7},{n * n % 11},{n % 5},{n % 3}" for n in range(40)]
    found = load(write(tmp_path, "\n".join(["target,400,500,600", *lines])), y="target")
    assert found.record["columns"] == ["400", "500", "600"]
    some = load(own := tmp_path / "own.csv", y="target", x=[400, 600])  # as a command line has them
    assert some.record["columns"] == ["400", "600"]
    assert data.prepare("points", {"path": str(own), "columns": 500, "repeats": "keep"})["columns"] == ["500"]
    options = {"time": "target", "values": [400, 500], "split": "time"}
    for name in ("table", "csv"):
        assert data.prepare(name, {"path": str(own), **options})["columns"][2:] == ["400", "500"]
    fit = {"path": str(own), "time": "target", "values": 600}
    assert data.prepare("observations", fit)["columns"][2:] == ["600"]
    new = write(tmp_path, "\n".join(["400,500,600", *(line.partition(",")[2] for line in lines)]), "new.csv")
    assert load(new, run=found.record).unlabelled.size == 40
    with pytest.raises(RequestError, match=r"line 1: numbers, but the first line must name the columns\. Add it\.$"):
        load(write(tmp_path, "\n".join(lines)), y="target")


WRONG = {
    "no y": (text(), {}, r"the column to predict is not set. Available: id, length, .* data\.y=NAME"),
    "no such column": (text(), {"y": "kind"}, r"there is no column kind \(data\.y=kind\)\. Available: id"),
    "both": (text(), {"y": "price", "x": ["price", "length"]}, r"price is in data\.x and in data\.y"),
    "a hole": (text(length=""), {"y": "species"}, r"line 2: length is missing\. .* data\.incomplete=drop"),
    "a hole in words": (text(island="NA"), {"y": "species"}, "line 2: island is missing"),
    "a word": (text(price="much"), {"y": "species"}, r"line 2: price='much' is not a finite number"),
    "many words": (text(), {"y": "price", "split": "species"}, "species='Adelie' is not one of train, valid, test"),
    "two classes": (text(), {"y": ["species", "island"], "task": "classify"}, "classes must be one column"),
    "images": (text(), {"y": "species", "augment": ["flip"]}, r"data\.augment=.* has no meaning for rows of features"),
    "nothing": (text(without=("length", "island", "price", "wings")), {"y": "species"}, "no column is left"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(tmp_path, name):
    content, options, says = WRONG[name]
    with pytest.raises(RequestError, match=says):
        load(write(tmp_path, content), **options)


def test_rows_that_lack_something_are_counted(tmp_path):
    rows = [dict(row) for row in ROWS]
    rows[3]["length"], rows[7]["species"], rows[9]["island"] = "", "", "NA"
    found = load(path := write(tmp_path, text(rows)), y="species", incomplete="drop")
    assert sum(found.record["sizes"].values()) == 57
    assert "2 rows with a missing feature ignored" in found.record["table"]
    assert "1 row without species ignored" in found.record["table"]
    options = {"path": str(path), "y": "species", "incomplete": "drop"}
    places = data.own_samples("features", options, load(write(tmp_path, text(), "b.csv"), y="species").record).row
    assert sorted({*range(60)} - {*places.tolist()}) == [3, 9]


@pytest.mark.parametrize(("y", "blank"), [("species", -1), ("price", math.nan)])
def test_rows_without_y_are_in_no_split_of_a_run(tmp_path, y, blank):
    """It goes on with the samples it began with; those to be predicted come last."""
    rows = [{**row, y: "" if n % 10 == 3 else row[y]} for n, row in enumerate(ROWS)]
    began = load(path := write(tmp_path, text(rows)), y=y)
    again = load(path, run=began.record, y=y)
    assert began.record["sizes"] == again.record["sizes"]
    assert all(map(torch.equal, whole(began), whole(again)))
    assert (again.unlabelled.size, again.record["unlabelled"]) == (6, 6)
    assert {*map(str, again.unlabelled.rows[1].flatten().tolist())} == {str(blank)}
    places = data.own_samples("features", {"path": str(path), "y": y}, began.record).row
    assert places[-6:].tolist() == [3, 13, 23, 33, 43, 53]


def test_eval_and_predict_score_the_rows_that_have_y(tmp_path, capsys):
    rows = [{**row, "price": "" if n % 10 == 3 else row["price"]} for n, row in enumerate(ROWS)]
    words = ["data=features", f"data.path={write(tmp_path, text(rows))}", "data.y=price", "model=resnet"]
    folder = train_run(tmp_path / "run", *words, "model.width=4", "model.blocks=1", "device=cpu", "trainer.max_steps=9")
    final = json.loads((folder / "run.json").read_text())["final"]
    capsys.readouterr()
    assert eval_command.main([str(folder)]) == 0
    assert f"{final['rmse']:.5f}" in capsys.readouterr().out
    new = write(tmp_path, text(rows[:20]), "new.csv")
    assert eval_command.main([str(folder), f"data.path={new}"]) == 0
    assert "18 samples of" in (told := capsys.readouterr().out)
    assert "(all); 2 without y left out" in " ".join(told.split())
    scored = json.loads((folder / "eval.jsonl").read_text().splitlines()[-1])
    assert predict.main([str(folder), f"data.path={new}", f"out={tmp_path / 'out.csv'}"]) == 0
    assert f"RMSE {scored['rmse']:.4g} (18 samples); 2 samples without y are only predicted" in capsys.readouterr().out
    frame = polars.read_csv(tmp_path / "out.csv")
    assert frame["price"].to_list() == [row["price"] or None for row in rows[:20]]
    assert frame["price_predicted"].is_finite().all()


def test_another_table_is_read_as_the_run_knows_it(tmp_path):
    run = load(write(tmp_path, text()), y="species").record
    new = write(tmp_path, text(ROWS[:5], without=("species", "id", "note")), "new.csv")
    found = load(new, run=run)
    assert found.record["unlabelled"] == found.unlabelled.size == 5
    assert found.record["columns"] == run["columns"]
    part = load(write(tmp_path, text(ROWS[::-1], island="B")), run=run)
    assert part.classes == 3
    for content, says in {
        text(island="C"): r"line 2: island='C' is not among the values the run was trained on: A, B",
        text(without=("price",)): r"there is no column price \(the run was trained with it\)",
        text(species="Emu"): r"names 1 samples of classes that the training samples lack, first 'Emu'",
    }.items():
        with pytest.raises(RequestError, match=says):
            load(write(tmp_path, content), run=run)


def test_another_unit_is_told_and_rows_that_are_ignored(tmp_path, caplog):
    run = load(write(tmp_path, text()), y="species").record
    mean, sd = run["x_mean"][3], run["x_sd"][3]
    rows = [{**row, "price": 100 * row["price"], "island": "A"} for row in ROWS[:6]]
    found = load(write(tmp_path, text(rows, length=""), "new.csv"), run=run, incomplete="drop")
    here = numpy.mean([row["price"] for row in rows[1:]])
    assert "5 standard deviations" in found.record["warning"]
    assert f"training samples: price ({here:.4g}; there {mean:.4g} ± {sd:.3g}). Predictions" in found.record["warning"]
    assert found.record["table"] == ["1 row with a missing feature ignored"]
    own = load(
        write(tmp_path, text(rows, length=""), "new.csv"),
        run={**run, "sha256": found.record["sha256"]},
        incomplete="drop",
    )
    assert own.record["warning"] is None  # of its own data it is no news


@pytest.mark.parametrize("word", ["high", "true"])
def test_words_where_the_run_had_numbers_are_named(tmp_path, word):
    run = load(write(tmp_path, text()), y="species").record
    rows = [{**row, "price": word if word == "high" else ["true", "false"][n % 2]} for n, row in enumerate(ROWS)]
    if word == "high":
        with pytest.raises(RequestError, match=r"line 2: price='high' is not a finite number"):
            load(write(tmp_path, text(rows), "new.csv"), run=run)
    else:
        assert load(write(tmp_path, text(rows), "new.csv"), run=run).record["columns"] == run["columns"]


def test_what_a_row_lacks_is_named(tmp_path):
    """Of `length` a row is told for another fault, and it was named for `wings`."""
    rows = [dict(row) for row in ROWS]
    rows[0]["length"], rows[1]["wings"], rows[2]["island"] = "x", "", "NA"
    with pytest.raises(RequestError, match=r"line 2: length='x'") as error:
        load(write(tmp_path, text(rows)), y="species", x=["length", "wings", "island"])
    assert "line 3: wings is missing (2 such cells or rows, also in line 4)" in str(error.value)


def test_another_table_needs_no_column_of_the_split(tmp_path):
    lines = text().splitlines()
    lines = [f"{lines[0]},part", *(f"{line},{['train', 'test'][n // 4 % 2]}" for n, line in enumerate(lines[1:]))]
    run = load(write(tmp_path, "\n".join(lines)), y="wings", split="part").record
    found = load(write(tmp_path, text(without=("wings",)), "new.csv"), run=run, split="part", y="wings")
    assert found.unlabelled.size == 60
    with pytest.raises(RequestError, match=r"no column part \(data\.split=part\)"):
        load(write(tmp_path, text(), "own.csv"), y="wings", split="part")


@pytest.mark.parametrize("y", ["species", "price"])
def test_a_network_trains_on_a_table_and_answers_with_its_rows(tmp_path, y):
    frame = polars.DataFrame(ROWS)
    frame.write_parquet(tmp_path / "own.parquet")
    frame.head(4).drop(y).reverse().write_parquet(tmp_path / "new.parquet")
    words = ("data=features", f"data.path={tmp_path / 'own.parquet'}", f"data.y={y}", "model=odenet", "model.width=4")
    folder = train_run(tmp_path / "run", *words, "trainer.max_steps=3", "device=cpu", "logger=none")
    assert json.loads((folder / "run.json").read_text())["data"]["target"] == [y]
    own, new = tmp_path / "own.csv", tmp_path / "new.csv"
    assert predict.main([str(folder), f"out={own}"]) == 0
    assert predict.main([str(folder), f"data.path={tmp_path / 'new.parquet'}", f"out={new}"]) == 0
    answers = [polars.read_csv(path) for path in (own, new)]
    assert answers[0]["label" if y == "species" else y].to_list() == frame[y].to_list()
    said = "class" if y == "species" else f"{y}_predicted"
    assert answers[1].columns == ["sample", *(["class", *(f"p_{k}" for k in KINDS)] if y == "species" else [said])]
    a, b = answers[0][said][:4].to_list(), answers[1][said].to_list()[::-1]
    assert a == (b if y == "species" else pytest.approx(b, rel=1e-5))
