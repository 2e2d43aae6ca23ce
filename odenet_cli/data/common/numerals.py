"""Parse numbers as people write them in cells: with thousands separators, units, and various negative signs."""

from __future__ import annotations

import re
from collections.abc import Iterable

import polars as pl

MISSING = ("", "na", "nan", "n/a", "#n/a", "null", "none", "-", "?")
TRUTH = {"true": 1.0, "false": 0.0}
BLANKS = " \u00a0\u2009\u202f'’"  # thousands separators with any decimal sign
NUMERAL = (
    r"^(?<open>\()?(?<sign>[+-])?(?<before>\p{Sc})?\s*(?<inner>[+-])?"
    rf"(?<digits>\d[\d.,{BLANKS}]*|[.,]\d+)(?<power>[eE][+-]?\d+)?(?<tail>-)?\s*"
    r"(?<unit>[\p{L}%‰°\p{Sc}][\p{L}%°/·^²³ ]*[23]?)?(?<close>\))?$"
)
# In Python's dialect of regular expressions.
MARKED = re.compile(
    rf"\(?[+-]?[^\w.,:/]{{0,2}}([+-]?(?:\d[\d.,{BLANKS}]*|[.,])?\d)(?:[eE][+-]?\d+)?-?\s?[^\d.,:/]{{0,5}}"
)
HOURS = ("am", "pm")  # not units


def between_thousands(group: str, point: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return patterns of numbers with certain (1.234,5 or 1.234.567) and possible (1.234) thousands separators."""
    g, p = re.escape(group), re.escape(point)
    return (
        re.compile(rf"[+-]?\d{{1,3}}(({g}\d{{3}})+{p}\d+|({g}\d{{3}}){{2,}})"),
        re.compile(rf"[+-]?[1-9]\d{{0,2}}{g}\d{{3}}"),
    )


def signs(cells: Iterable[str], stated: str | None, separator: str) -> tuple[str, bool | None]:
    """Return the decimal sign of a table from some of its cells, and whether the other sign separates thousands.

    stated  by the user; then the other sign does, unless it also occurs as a decimal sign: 1,5 beside 0.5
    """
    numbers = [re.sub(f"[{BLANKS}]", "", found[1]) for cell in cells if (found := MARKED.fullmatch(cell))]
    clear, plain = dict[str, bool](), dict[str, bool]()
    for group, point in ((",", "."), (".", ",")):
        certain, maybe = between_thousands(group, point)
        clear[point] = any(map(certain.fullmatch, numbers))
        others = [cell for cell in numbers if cell.count(group) == 1 and point not in cell]
        plain[group] = any(not maybe.fullmatch(cell) for cell in others)
    # 1.234,5 is unambiguous, and so is 0,5 if no point is a decimal sign.
    pairs = ((".", ","), (",", "."))
    known = [point for point, other in pairs if clear[point] and not clear[other]]
    known = known or [point for point, other in pairs if plain[point] and not plain[other] and separator != point]
    commas = separator != "," and any("," in cell for cell in numbers)
    guess = known[0] if known else "," if commas and not any("." in cell for cell in numbers) else "."
    decimal = stated or guess
    mixed = plain["," if decimal == "." else "."]
    if stated:
        return decimal, not mixed
    return decimal, True if known and not mixed else None


def read(text: pl.Series, decimal: str, grouped: bool | None) -> tuple[pl.Series, list[str]]:
    """Return the numbers of a column of text, null if a cell has none, and the assumptions about them.

    grouped  the sign that is not decimal is known to separate thousands: 1,234 is 1234
    """
    x = text.cast(pl.Float64, strict=False) if decimal == "." else pl.Series([None], dtype=pl.Float64)
    if len(x) != len(text) or x.null_count() > text.null_count():
        plain = text.str.strip_chars()
        if decimal == ",":
            commas = ~plain.str.contains(".", literal=True)
            plain = pl.select(pl.when(commas).then(plain.str.replace(",", ".", literal=True))).to_series()
        x = plain.cast(pl.Float64, strict=False)
    if x.null_count() == text.null_count():
        return x, []
    rest = text.filter(x.is_null()).drop_nulls().unique(maintain_order=True)
    bare = x.null_count() < len(x)
    numbers, notes = _read(rest.str.strip_chars().str.replace("−", "-", literal=True), decimal, grouped, bare)
    if not bare and numbers.null_count() == len(numbers):
        numbers = _truth(rest.str.strip_chars().str.to_lowercase())
    if numbers.null_count() == len(numbers):
        return x, []
    return x.zip_with(x.is_not_null(), text.replace_strict(rest, numbers, default=None, return_dtype=pl.Float64)), notes


def _read(words: pl.Series, decimal: str, grouped: bool | None, bare: bool) -> tuple[pl.Series, list[str]]:
    """Return the numbers in words other than plain numbers; `bare`: other cells of the column are plain numbers."""
    group = "," if decimal == "." else "."
    clear, maybe = (rf"^({kind.pattern})$" for kind in between_thousands(group, decimal))
    parts = words.str.extract_groups(NUMERAL).struct.unnest()
    signs = [pl.col(key).is_not_null().cast(pl.Int8) for key in ("sign", "inner", "tail", "open")]
    minus = (
        (pl.col("sign") == "-") | (pl.col("inner") == "-") | pl.col("tail").is_not_null() | pl.col("open").is_not_null()
    )
    blanks = rf"^\d{{1,3}}([{BLANKS}]\d{{3}})+([.,]\d+)?$"
    frame = parts.with_columns(pl.col("digits").str.strip_chars(BLANKS)).with_columns(
        pl.when(pl.col("digits").str.contains(blanks))
        .then(pl.col("digits").str.replace_all(f"[{BLANKS}]", ""))
        .otherwise("digits")
        .alias("digits"),
        pl.concat_str(pl.col("before", "unit").fill_null("")).str.strip_chars().alias("mark"),
        pl.when(minus.fill_null(False)).then(-1.0).otherwise(1.0).alias("factor"),
        ((pl.sum_horizontal(signs) <= 1) & (pl.col("open").is_null() == pl.col("close").is_null())).alias("sound"),
    )
    digits = pl.col("digits")
    has_group, thousands = digits.str.contains(group, literal=True), digits.str.contains(maybe)
    odd = frame.select((has_group & ~thousands & ~digits.str.contains(clear)).any()).item()
    joined = digits.str.contains(clear) | (thousands & bool(grouped and not odd))
    plain = (
        pl.when(joined)
        .then(digits.str.replace_all(group, "", literal=True).str.replace(decimal, ".", literal=True))
        .when(~has_group)
        .then(digits.str.replace(decimal, ".", literal=True))
        .when(pl.lit(group == ".") & ~thousands)
        .then(digits)
    )
    number = (plain + pl.col("power").fill_null("")).cast(pl.Float64, strict=False) * pl.col("factor")
    frame = frame.with_columns(
        pl.when("sound").then(number).alias("x"), (joined & ~digits.str.contains(clear)).alias("joined")
    )
    marks = frame.filter(pl.col("x").is_not_null())["mark"].unique().to_list()
    unit = next((mark for mark in marks if mark), "")
    if unit and (bare or len(marks) > 1 or unit.lower() in HOURS):
        frame = frame.with_columns(pl.when(pl.col("mark") == "").then("x").alias("x"))
        unit = ""
    read = frame.with_columns(words.alias("word")).filter(pl.col("x").is_not_null())
    notes = [f"{unit} stands in every cell"] if unit else []
    for key in ("open", "joined"):
        shown = read.filter(pl.col(key) if key == "joined" else pl.col(key).is_not_null()).head(1)
        notes += [f"{word} read as {x:.15g}" for word, x in shown.select("word", "x").rows()]
    return frame["x"], notes


def _truth(words: pl.Series) -> pl.Series:
    """Return 1 and 0 for true and false, if there are no other words except those for a missing cell."""
    x = words.replace_strict(TRUTH, default=None, return_dtype=pl.Float64)
    others = words.filter(x.is_null())
    return x if others.is_in(MISSING).all() else x.clear(len(x))


def like_thousands(text: pl.Series, decimal: str) -> bool:
    """Return whether every decimal sign of a column may be a thousands separator: 1.230, 12.345."""
    like = rf"^\s*({between_thousands(decimal, '')[1].pattern})\s*$"
    numbers = text.filter(text.str.contains(decimal, literal=True))
    return not numbers.is_empty() and all(part.str.contains(like).all() for part in (numbers.head(1000), numbers))


def likely_thousands(text: pl.Series, decimal: str) -> bool:
    """Return whether a column that is `like_thousands` holds 1.230 and 12.345 beside 987.

    No program writes 1.230 and 987 into the same column if they are decimal numbers.
    """
    marked = text.str.contains(decimal, literal=True)
    whole = text.filter(~marked).str.contains(r"^\s*[+-]?\d{1,3}\s*$")
    return bool(text.filter(marked).str.contains(r"0\s*$").any() and whole.any())
