"""A configuration from elsewhere is plain values, and not too many of them, or refused by file and line."""

import time

import pytest

from odenet_cli.config.presets import conf_dir
from odenet_cli.config.saved import MAX_VALUES, check_yaml
from odenet_cli.errors import RequestError

FINE = [
    "",
    "a: 1\nb: [1, 2]\nc: {d: null}\n",
    "a: {<<: {b: 1}}\n",
    "a: !!str 1\nb: ! x\n",
    "a: ${.b}\n",
]
EVIL = {
    "a: !!python/object/apply:os.mkdir [x]\n": "line 1: the tag !!python/object/apply:os.mkdir is not allowed",
    "b: 1\na: !mine {x: 1}\n": "line 2: the tag !mine",
    "a: !!python/name:os.system\n": "!!python/name:os.system",
    "a: &x 1\n": "line 1: a configuration may not contain YAML anchors and aliases (&x, *x)",
    "a: *b\n": "anchors and aliases (&b, *b)",
    "a: ${oc.env:HOME}\n": "a uses ${oc.env:HOME}",
    "a: ${oc.select:x,${oc.env:HOME}}\n": "a uses",
    "a: \\${oc.env:HOME}\n": "a uses",
    "a: ${${b}:HOME}\n": "a uses",
    "a: " + "[" * 100 + "]" * 100: "levels",
    "a: [" + "1," * MAX_VALUES + "]\n": "values",
    "a: [1\n": "not valid YAML",
    "a: '" + "x" * (1 << 20) + "'\n": "bytes",
}


@pytest.mark.parametrize("text", FINE)
def test_plain_values_pass(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    check_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_anything_else_is_refused_at_once(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    begun = time.process_time()
    with pytest.raises(RequestError, match=r"config\.yaml") as refused:
        check_yaml(tmp_path / "config.yaml")
    assert EVIL[text] in str(refused.value)
    assert time.process_time() - begun < 2


def test_what_is_no_text_or_not_there_is_named(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(RequestError, match="not UTF-8 text"):
        check_yaml(tmp_path / "config.yaml")
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        check_yaml(tmp_path / "nothing.yaml")


def test_our_own_presets_are_plain():
    for path in set(conf_dir().rglob("*.yaml")) - {conf_dir() / "hydra" / "odenet.yaml"}:  # it calls our resolver
        check_yaml(path)
