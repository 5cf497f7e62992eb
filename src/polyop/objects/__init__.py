"""Opaque objects: operators that take them, their fakes, and the order of effects."""

from polyop.lazy import lazily

_PLACES = {
    "EffectType": "polyop.objects.effects",
    "FakeObject": "polyop.objects.fakes",
    "MemberType": "polyop.schema.opaque",
    "add_tokens": "polyop.objects.tokens",
    "call_object": "polyop.objects.calls",
    "effect_of": "polyop.objects.effects",
    "fake_of": "polyop.objects.fakes",
    "has_effects": "polyop.objects.effects",
    "register_effect": "polyop.objects.effects",
    "register_fake_class": "polyop.objects.fake_classes",
    "register_opaque_type": "polyop.objects.types",
    "remove_tokens": "polyop.objects.tokens",
    "run_ordered": "polyop.objects.effects",
    "with_effects": "polyop.objects.calls",
}
__getattr__, __dir__ = lazily(__name__, _PLACES)
__all__ = [*_PLACES]  # noqa: PLE0604 - names alone
