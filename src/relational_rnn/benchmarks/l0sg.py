"""The port of L0SG as a contender, from a checkout that the user names; loading it runs the code that lies there.

Current torch refuses the port's in-place product of a view, the queries, if there are gradients; that one statement is
replaced in memory by the same product out of place. The port is timed but not checked, since it computes another
function than ours: its layer norms run over all slots together, and its MLP applies one layer several times.
"""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from types import ModuleType

from relational_rnn._check import InputError, describe
from relational_rnn._reading.guard import damaged
from relational_rnn._reading.plain import read_text

FILE = "relational_rnn_general.py"
ROUTINE, VALUE = "multihead_attention", "q"
"""Where the statement is, and what it multiplies."""


class Mend(ast.NodeTransformer):
    """Makes `q *= s` an assignment `q = q * s`."""

    def __init__(self) -> None:
        self.mended = 0

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if not (isinstance(node.target, ast.Name) and node.target.id == VALUE and isinstance(node.op, ast.Mult)):
            return node
        self.mended += 1
        product = ast.BinOp(ast.Name(VALUE, ast.Load()), node.op, node.value)
        return ast.copy_location(ast.Assign([ast.Name(VALUE, ast.Store())], product), node)


def load_port(checkout: Path) -> ModuleType:
    """Run the port's file, mended, and return it as a module.

    Raises:
        InputError: there is no such file, or the statement to mend is not in it exactly once.
    """
    path = checkout / FILE
    if not path.is_file():
        hint = "name a checkout of github.com/L0SG/relational-rnn-pytorch"
        raise InputError(describe("--l0sg", "the port is not there", got=checkout, expected=path, hint=hint))
    mend = Mend()
    text = read_text(path)
    with damaged(f"--l0sg: {path}", "the port cannot be read"):
        tree = ast.parse(text)
    for routine in ast.walk(tree):
        if isinstance(routine, ast.FunctionDef) and routine.name == ROUTINE:
            mend.visit(routine)
    if mend.mended != 1:
        problem = "the statement that crashes on current torch is not there exactly once"
        expected = f"one in-place product of {VALUE} in {ROUTINE}"
        raise InputError(describe("--l0sg", problem, got=f"{mend.mended} in {path}", expected=expected))
    module = ModuleType("l0sg_relational_rnn_general")
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), module.__dict__)
    return module


def port_commit(checkout: Path) -> str | None:
    """The commit of the checkout, if git knows it."""
    try:
        git = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
        done = subprocess.run(git, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None
