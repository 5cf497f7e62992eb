"""docs/from-pytorch.md: every line of its tables does what it says, and no name is left out."""

from __future__ import annotations

import ast
import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from polyop import errors

PAGE = Path(__file__).parent.parent / "docs" / "from-pytorch.md"
SECTION = re.compile(r"^## ", re.MULTILINE)
SPAN = re.compile(r"`` ?(.+?) ?``|`([^`]+)`")
HEADER = "| PyTorch | polyop | a line | gives |"
RULE = "| --- | --- | --- | --- |"
CHECK = doctest.OutputChecker().check_output


class Row(NamedTuple):
    """One row of a table: what PyTorch calls it, a line of Python, and what that gives."""

    line: int
    pytorch: str
    code: str
    gives: str


class Block(NamedTuple):
    """A block of Python between tables."""

    line: int
    code: str


def code_of(cell: str) -> str:
    """Give the first code in a cell."""
    found = SPAN.search(cell)
    return (found[1] or found[2]).replace("\\|", "|") if found else ""


def parts(text: str, first: int) -> Iterator[Row | Block]:
    """Give the blocks and rows of a section, in order."""
    lines = text.splitlines()
    i = 0
    while i < len(lines):
        if lines[i] == "```py":
            end = lines.index("```", i)
            yield Block(first + i + 1, "\n".join(lines[i + 1 : end]))
            i = end
        elif lines[i].startswith("| ") and lines[i] not in (HEADER, RULE):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", lines[i])[1:-1]]
            assert len(cells) == 4, f"line {first + i}: {len(cells)} cells"
            yield Row(first + i, cells[0], code_of(cells[2]), cells[3])
        i += 1


def sections() -> dict[str, list[Row | Block]]:
    """Give the parts of each section by its title."""
    text = PAGE.read_text()
    starts = [m.start() for m in SECTION.finditer(text)]
    found = {}
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        title = text[start + 3 : end].partition("\n")[0]
        found[title] = list(parts(text[start:end], text[:start].count("\n") + 1))
    return found


def rows() -> list[Row]:
    """Give all rows of the page."""
    return [part for found in sections().values() for part in found if isinstance(part, Row)]


def run(row: Row, scope: dict[str, Any]) -> str:
    """Run a row's line; give the text of what came of it, of its last expression."""
    steps = ast.parse(row.code).body
    last = steps[-1]
    value: ast.expr = ast.Constant(None)
    if isinstance(last, ast.Expr):
        value = last.value
        steps.pop()
    result = ast.fix_missing_locations(ast.Expression(value))
    try:
        exec(compile(ast.Module(steps, []), PAGE.name, "exec"), scope)
        return repr(eval(compile(result, PAGE.name, "eval"), scope))
    except (errors.PolyopError, OSError) as error:
        return f"raises {type(error).__name__}"


def expected(row: Row) -> str:
    """Give the text that a row says comes of it."""
    return row.gives.replace("`", "") if row.gives.startswith("raises ") else code_of(row.gives)


def mismatches(title: str) -> Iterator[str]:
    """Run a section, in one namespace; give a line for each row that does something else."""
    scope: dict[str, Any] = {"__name__": f"from_pytorch_{title}"}
    for part in sections()[title]:
        if isinstance(part, Block):
            code = "\n" * (part.line - 1) + part.code
            exec(compile(code, str(PAGE), "exec", dont_inherit=True), scope)
            continue
        want, got = expected(part), run(part, scope)
        if not CHECK(want + "\n", got + "\n", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE):
            yield f"line {part.line}: {part.code} gives {got}, not {want}"


@pytest.mark.parametrize("title", sections())
def test_every_line_gives_what_it_says(title: str) -> None:
    """S1: what the page says of a name of PyTorch is what polyop does."""
    assert list(mismatches(title)) == []


def test_every_row_runs() -> None:
    """S1: each row names something of PyTorch, and has one line that runs."""
    found = rows()
    assert len(found) > 200
    assert [row.line for row in found if not (row.pytorch and row.code and row.gives)] == []


#: What the documents name, in their order: classes with their methods, functions, state.
OPS = """
dl_open_guard _SET_GLOBAL_FLAGS RTLD_GLOBAL
OperatorBase OperatorBase.__init__ OperatorBase.__call__ OperatorBase.py_impl OperatorBase.name
OperatorBase.has_kernel_for_dispatch_key OperatorBase.has_kernel_for_any_dispatch_key inner
OperatorBase.py_functionalize_impl functionalize_rule functionalize_dk_fn
functionalize_dispatch_mode_fn functionalize_functorch_fn _dispatch_cache py_kernels
python_key_table functorch_table BaseFunctionalizeAPI CppFunctionalizeAPI PythonFunctionalizeAPI
FunctorchFunctionalizeAPI FunctionalTensorMode TransformType TransformType.Functionalize
ctx.wrap_tensors ctx.unwrap_tensors ctx.functionalize ctx.redispatch_to_next
resolve_key is_included_in_alias has_backend_kernel
_higher_order_ops _HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS
HigherOrderOperator HigherOrderOperator.__init__ HigherOrderOperator.py_impl
HigherOrderOperator.py_autograd_impl maybe_run_autograd HigherOrderOperator.namespace
HigherOrderOperator.cacheable HigherOrderOperator.fallthrough HigherOrderOperator.dispatch
HigherOrderOperator.__call__ HigherOrderOperator.gen_schema HigherOrderOperator.__str__
HigherOrderOperator.name HigherOrderOperator.__module__ _name _ns _cacheable non_fallthrough_keys
AutogradFunctionApply has_python_key check_overloaded overloaded_args_list
supports_higher_order_operators _has_gen_schema dispatch_functorch _get_current_dispatch_mode
_pop_mode_temporarily _to_flat_tuple _compute_keyset _get_tensors key_extractor
highestPriorityTypeId _ModeStackStateForPreDispatch _ModeStackStateForPreDispatch.__init__
_ModeStackStateForPreDispatch.set _ModeStackStateForPreDispatch.get
_ModeStackStateForPreDispatch.count __infra_modes _schema_check_mode
_mode_stack_state_for_pre_dispatch unset_mode_pre_dispatch _unset_mode _set_mode_pre_dispatch
_pop_mode_from_pre_dispatch _len_torch_dispatch_stack_pre_dispatch
_get_dispatch_mode_pre_dispatch _get_current_dispatch_mode_pre_dispatch SchemaCheckMode
mode_stack_state_for_pre_dispatch cached_ops add_cached_op reset_cached_ops get_cached_ops
OpOverload OpOverload.__init__ OpOverload._namespace OpOverload._opname OpOverload._handle
OpOverload.__deepcopy__ OpOverload.__repr__ OpOverload.__call__ OpOverload.redispatch
OpOverload.__hash__ OpOverload.__str__ OpOverload.has_kernel_for_dispatch_key
OpOverload.has_kernel_for_any_dispatch_key OpOverload.namespace OpOverload._can_decompose
OpOverload.decompose OpOverload._uncache_dispatch OpOverload._get_dispatch handler
_temporarily_pop_modes_from_pre_dispatch OpOverload.name OpOverload.overloadpacket OpOverload.op
OpOverload.tags OpOverload.is_view _op _op_dk _schema _overloadpacket _tags _overloadname
_nondeterministic_seeded __name__ __module__ __qualname__ __annotations__ _defined_in_python
CROSSREF_FUNCTIONALIZE
TorchBindOpOverload TorchBindOpOverload._fallthrough_keys _DEFAULT_FALLTHROUGH_KEYS
_may_use_fallthrough_instead_of_fallback
TorchBindOpOverload._register_as_effectful_op_temporarily TorchBindOpOverload.__call__
TorchBindOpOverload._dispatch_in_python _must_dispatch_in_python _has_script_object_arg
OpOverloadPacket OpOverloadPacket.__init__ OpOverloadPacket.__deepcopy__ OpOverloadPacket.__repr__
OpOverloadPacket.__hash__ OpOverloadPacket.__str__ OpOverloadPacket.op OpOverloadPacket._schemas
OpOverloadPacket.__getattr__ OpOverloadPacket.__file__ _qualified_op_name _overload_names _dir
_has_torchbind_op_overload _OpNamespace _HigherOrderNamespace _Ops
"""
#: The keys, and what `torch/_ops.py` uses of the rest of PyTorch.
USED = """
DispatchKey DispatchKey.ADInplaceOrView DispatchKey.AutocastCPU DispatchKey.AutocastCUDA
DispatchKey.AutocastXPU DispatchKey.Autograd DispatchKey.AutogradCPU DispatchKey.AutogradCUDA
DispatchKey.AutogradOther DispatchKey.BackendSelect DispatchKey.CompositeExplicitAutograd
DispatchKey.CompositeExplicitAutogradNonFunctional DispatchKey.CompositeImplicitAutograd
DispatchKey.CompositeImplicitAutogradNestedTensor DispatchKey.FuncTorchBatchedDecomposition
DispatchKey.FuncTorchDynamicLayerFrontMode DispatchKey.Functionalize DispatchKey.PreDispatch
DispatchKey.Python DispatchKey.PythonDispatcher DispatchKey.PythonTLSSnapshot
DispatchKey.Undefined TorchDispatchMode torch.Tensor ParamSpec TypeVar
pytree.arg_tree_leaves pytree.tree_all_only pytree.tree_any torch.ClassType torch.FunctionSchema
torch.ScriptObject torch.Tag.nondeterministic_seeded torch._C.DispatchKeySet
torch._C.FunctionSchema torch._C._AutoDispatchBelowAutograd torch._C._DispatchOperatorHandle
torch._C._TorchDispatchModeKey.FUNCTIONAL torch._C._TorchDispatchModeKey.PROXY
torch._C._disabled_torch_dispatch_impl torch._C._dispatch_autogradother_backends
torch._C._dispatch_find_schema_or_throw torch._C._dispatch_get_backend_keyset_from_autograd
torch._C._dispatch_has_backend_fallback torch._C._dispatch_has_kernel_for_any_dispatch_key
torch._C._dispatch_has_kernel_for_dispatch_key torch._C._dispatch_is_alias_key
torch._C._dispatch_kernel_for_dispatch_key_is_fallthrough torch._C._dispatch_keys
torch._C._dispatch_keyset_full torch._C._dispatch_tls_is_dispatch_key_excluded
torch._C._dispatch_tls_local_exclude_set torch._C._dispatch_tls_local_include_set
torch._C._dispatch_tls_set_dispatch_key_included torch._C._get_schema
torch._C._to_functionality_key torch._dispatch.python torch._functorch.autograd_function
torch._functorch.config.autograd_cache_allow_custom_autograd_functions
torch._functorch.pyfunctorch torch._higher_order_ops.effects torch._higher_order_ops.utils
_EffectType.ORDERED _get_effect _register_effectful_op
torch._inductor.config.unsafe_marked_cacheable_functions
torch._library.fake_class_registry.FakeScriptObject torch._library.utils.handle_dispatch_mode
torch._subclasses.fake_tensor.FakeTensor torch._subclasses.fake_tensor.FakeTensorMode
torch._subclasses.functional_tensor torch._subclasses.schema_check_mode
torch.fx.experimental.proxy_tensor ProxyTorchDispatchMode torch.is_grad_enabled
torch.library._defs torch.library.fallthrough_kernel torch.library.impl torch.ops
torch.ops.higher_order torch.overrides.handle_torch_function torch.overrides.has_torch_function
torch.utils._python_dispatch torch.utils._pytree
AssertionError NotImplementedError RuntimeError TypeError ValueError
"""
EXPORT = """
torch.library.Library lib.define access_subclass_inner_tensor _access_subclass_inner_tensor
_call_custom_autograd_function_in_pre_dispatch is_traceable_wrapper_subclass import_module
torch.inference_mode apply function_cls_name
"""
DELEGATE = """
ExecutorchCallDelegate ExecutorchCallDelegate.__init__ ExecutorchCallDelegate.__call__
executorch_call_delegate LOWERED_BACKEND_MODULE_TYPE trace_call_delegate _unwrap_proxy
call_delegate_cpu call_delegate_autograd fake_requires_grad
call_delegate_proxy_torch_dispatch_mode call_delegate_fake_tensor_mode
call_delegate_functionalize is_lowered_module get_lowered_module_name LoweredBackendModule
lowered_module.original_module.module map_types torch._C._ExcludeDispatchKeyGuard
torch.fx.immutable_collections.immutable_dict torch.fx.immutable_collections.immutable_list
torch.is_complex torch.is_floating_point torch.nn.Module torch.SymFloat torch.SymInt
disable_proxy_modes_tracing get_proxy_slot track_tensor_tree create_proxy pytree.tree_map
pytree.tree_map_only tree_flatten py_autograd_impl add_module
"""
LIBRARY = """
torch.library torch.library.opcheck torch.autograd.gradcheck torch.library.custom_op name
mutates_args device_types schema numpy_sin numpy_sin_cpu numpy_sin_inplace bar
torch.library.register_kernel torch.library.register_autograd torch.library.register_fake
custom_linear custom_nonzero torch.library.get_ctx ctx.new_dynamic_size make_fx print_readable
torch.library.register_vmap vmap_func torch.vmap TORCH_LIBRARY torch.compile torch.export
torch.allclose torch.device torch.from_numpy torch.int64 torch.ones torch.randn torch.tensor
crop paste backward setup_context crop.register_fake torch.autograd.Function torch.add torch.sum
torch.double
"""
#: Its notes, and the rules and steps that have a number, as the page calls them.
NOTES = (
    *("1, ", "2.1, ", "2.2, ", "2.3, ", "2.4, ", "2.5, ", "backend fallback", "nothing found"),
    "Note [Not Caching Per-Dispatch-Key Mode Handlers]",
    "NOTE [HigherOrderOperator Schema]",
    "[NOTE] a pre-dispatch key without modes is redispatched",
    "[NOTE] a pre-dispatch kernel is not cached",
    "the note that it is the C++ extractor",
    "NOTE: a key is compared by `is`",
    "warning: one registration changes several keys",
    *("step 1", "step 2", "all handlers return `NotImplemented`"),
    "a handler gets precisely the arguments of the call",
    "does something for higher-order operators alone",
    "has an effect while it is traced, unless registered",
    "an argument named `self` may be given by name",
    "a dunder name is not looked up as an overload",
    "the key is included while a mode is set",
    "the key is taken out with the last mode",
    "under `torch.inference_mode` the Autograd key is skipped",
    "there is no schema",
    "support autograd",
    "composition of operators needs no `custom_op`",
    "must be accurate, or behaviour is undefined",
    "keyword-only Tensors are not supported",
)
NAME = re.compile(r"[A-Za-z_][\w.]*\w|\w")


def named() -> set[str]:
    """Give all names in the first column, whole and by their last part."""
    spans = " ".join(m[0] for row in rows() for m in SPAN.finditer(row.pytorch))
    whole = set(NAME.findall(spans))
    return whole | {name.rpartition(".")[2] for name in whole}


@pytest.mark.parametrize("document", [OPS, USED, EXPORT, DELEGATE, LIBRARY])
def test_no_name_is_left_out(document: str) -> None:
    """S1: each name of a document of PyTorch has a row."""
    known = named()
    assert [name for name in document.split() if name not in known] == []


@pytest.mark.parametrize("note", NOTES)
def test_no_note_is_left_out(note: str) -> None:
    """S1: each note and each numbered rule of the documents has a row."""
    assert any(note in row.pytorch for row in rows())


def test_numbers_are_those_of_the_specification() -> None:
    """S1: each item that the page cites is one of the specification."""
    cited = set(re.findall(r"\bS(\d+)\b", PAGE.read_text()))
    specification = (PAGE.parent / "specification.md").read_text()
    assert cited - set(re.findall(r"^\*\*S(\d+)\*\*", specification, re.MULTILINE)) == set()
