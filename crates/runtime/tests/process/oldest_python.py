"""Whether the shim, whose path is the argument, is one for Python 3.9: its grammar, and what it uses of the library.

A later Python reads the grammar of 3.9, but has the later library; so whatever the shim takes from a module is written
down here, after a look at "New in version" in its documentation. Prints what is later or not written down.
"""

import ast
import sys

KNOWN = {
    "_thread": "get_ident",
    "asyncio": "all_tasks gather new_event_loop set_event_loop",
    "atexit": "_run_exitfuncs",
    "difflib": "get_close_matches",
    "importlib.util": "module_from_spec spec_from_file_location",
    "inspect": "signature",
    "json": "JSONDecodeError JSONEncoder loads",
    "os": "_exit close environ path read register_at_fork set_inheritable write",
    "signal": "SIGINT SIGTERM SIG_BLOCK SIG_DFL SIG_IGN SIG_SETMASK getsignal pthread_sigmask signal",
    "site": "addsitedir",
    "struct": "Struct",
    "sys": "argv builtin_module_names modules path stderr stdout version version_info",
    "time": "time",
    "traceback": "TracebackException print_exc",
}
LATER_BUILTINS = {"aiter", "anext", "BaseExceptionGroup", "EncodingWarning", "ExceptionGroup"}
LATER_METHODS = {"add_note", "bit_count"}
LATER_KEYWORDS = {"compact", "kw_only", "slots", "strict"}


def used(tree):
    """Pairs of module and name."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    modules = {alias.name for node in imports for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield node.value.id, node.attr


def later(tree):
    """What Python 3.9 does not have, as far as it has a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in LATER_BUILTINS:
            yield node.id
        elif isinstance(node, ast.Attribute) and node.attr in LATER_METHODS:
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg in LATER_KEYWORDS:
            yield node.arg + "="


with open(sys.argv[1], encoding="utf-8") as file:
    tree = ast.parse(file.read(), feature_version=(3, 9))
unknown = {"%s.%s" % pair for pair in used(tree) if pair[1] not in KNOWN.get(pair[0], "").split()}
print("\n".join(sorted(unknown | set(later(tree)))), end="")
