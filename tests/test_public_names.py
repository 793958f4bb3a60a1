"""What the package offers by name is there, and asking for help costs no import of torch."""

import subprocess
import sys

import pytest

import relational_rnn
import relational_rnn.nn


@pytest.mark.parametrize("module", [relational_rnn, relational_rnn.nn], ids=lambda m: m.__name__)
def test_every_public_name_can_be_imported(module):
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'relational_rnn' has no attribute 'RelationalMemorie'"):
        relational_rnn.RelationalMemorie  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, relational_rnn; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
