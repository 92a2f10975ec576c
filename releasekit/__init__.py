"""Release models as deltas, and rebuild them byte for byte.

    make_delta     release a fine-tune as its difference from a base
    make_spread    the same in parts; make_share and finish_make, as with apply
    apply_delta    rebuild the fine-tune's files from base and delta
    apply_spread   the same in parts, by the machines of a cluster
    apply_share    one of several shares of it, as array jobs do; finish_apply completes it
    plan           what a release of any size takes, on how many machines
    plan_apply     what apply_delta would read, write and need
    preflight      whether apply_delta would succeed, and all that speaks against it
    open_delta     rebuild into memory, tensor by tensor, on any torch device
    load_into      fill a model that is in memory, in place
    swap_in        put a release in its base's place in memory, and take it out again
    open_view      read a release as the safetensors files that it would rebuild
    sign           sign a release, or any folder
    write_card     write the model card of a release, with evaluations and licences
    check_card     whether a card is what the Hub takes
    check_licenses what speaks against publishing a release under its licences
    publish        put a release, or a full model, on the Hugging Face Hub
    plan_publish   what publish would do
    fetch          download a release, or a model, and check every byte of it
    verify         hold a release, or a rebuilt model, against its digests
    convert        write any checkpoint that can be read as sharded safetensors
    convert_spread the same in parts; convert_share and finish_convert, as with apply
    identify       the identity of a checkpoint, and which release knows it
    apply_foreign  rebuild a model from a delta that another tool made, to be added
    apply_xor      likewise from XOR files
    import_delta   make a release of such a delta
    inspect        what a release or a checkpoint holds, from headers alone
    compare        two models, tensor by tensor: what changed, and how far
    narrowest      which floats a smaller dtype would hold, bit for bit
    report         draw a model, or a model against its base, as a page with charts

Names are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from releasekit.authenticity import Authenticity, Policy
    from releasekit.codec import Add, Ulp
    from releasekit.comparison import compare, narrowest
    from releasekit.conversion import ConvertResult, convert
    from releasekit.conversion.spread import (
        ConvertShare,
        convert_share,
        convert_spread,
        finish_convert,
    )
    from releasekit.delta.apply import ApplyPlan, ApplyResult, apply_delta, plan_apply
    from releasekit.delta.diagnosis import Finding
    from releasekit.delta.load import load_into
    from releasekit.delta.making.made import MakeResult
    from releasekit.delta.making.make import make_delta
    from releasekit.delta.making.spread import finish_make, make_share, make_spread
    from releasekit.delta.open import OpenDelta, open_delta
    from releasekit.delta.preflight import Preflight
    from releasekit.delta.spread import apply_share, apply_spread, finish_apply
    from releasekit.delta.swap import Swapped, swap_in
    from releasekit.delta.view import FileView, View, open_view
    from releasekit.errors import (
        BaseMismatchError,
        FormatError,
        HubError,
        IntegrityError,
        LicenseError,
        ReleaseKitError,
        SignatureError,
        UsageError,
    )
    from releasekit.fetching import Fetched, fetch
    from releasekit.findings import RuleFinding
    from releasekit.foreign.apply import (
        ForeignPlan,
        ForeignResult,
        apply_foreign,
        plan_foreign,
    )
    from releasekit.foreign.importing import ImportResult, import_delta
    from releasekit.foreign.preflight import preflight
    from releasekit.foreign.xor import apply_xor
    from releasekit.identification import Identification, identify
    from releasekit.inspection import Inspection, inspect
    from releasekit.licensing.clearance import Clearance, check_licenses
    from releasekit.licensing.terms import Licensing
    from releasekit.parts.shares import PartResult
    from releasekit.planning.measure import measure
    from releasekit.planning.planner import Machine, Plan, plan
    from releasekit.planning.rates import Rates
    from releasekit.presentation.writing import CardResult, check_card, write_card
    from releasekit.progress import Progress
    from releasekit.publication import (
        Published,
        PublishPlan,
        Wishes,
        plan_publish,
        publish,
    )
    from releasekit.reporting import ReportResult, report
    from releasekit.sealing import SignResult, sign
    from releasekit.signing.keys import PrivateKey, PublicKey
    from releasekit.statistics.diff import Diff
    from releasekit.verification import Verification, verify

_HOMES = {
    "Add": "codec",
    "ApplyPlan": "delta.apply",
    "ApplyResult": "delta.apply",
    "Authenticity": "authenticity",
    "BaseMismatchError": "errors",
    "CardResult": "presentation.writing",
    "Clearance": "licensing.clearance",
    "ConvertResult": "conversion",
    "ConvertShare": "conversion.spread",
    "Diff": "statistics.diff",
    "Fetched": "fetching",
    "FileView": "delta.view",
    "Finding": "delta.diagnosis",
    "ForeignPlan": "foreign.apply",
    "ForeignResult": "foreign.apply",
    "FormatError": "errors",
    "HubError": "errors",
    "Identification": "identification",
    "ImportResult": "foreign.importing",
    "Inspection": "inspection",
    "IntegrityError": "errors",
    "LicenseError": "errors",
    "Licensing": "licensing.terms",
    "Machine": "planning.planner",
    "MakeResult": "delta.making.made",
    "OpenDelta": "delta.open",
    "PartResult": "parts.shares",
    "Plan": "planning.planner",
    "Policy": "authenticity",
    "Preflight": "delta.preflight",
    "PrivateKey": "signing.keys",
    "Progress": "progress",
    "PublicKey": "signing.keys",
    "PublishPlan": "publication",
    "Published": "publication",
    "Rates": "planning.rates",
    "ReleaseKitError": "errors",
    "ReportResult": "reporting",
    "RuleFinding": "findings",
    "SignResult": "sealing",
    "SignatureError": "errors",
    "Swapped": "delta.swap",
    "Ulp": "codec",
    "UsageError": "errors",
    "Verification": "verification",
    "View": "delta.view",
    "Wishes": "publication",
    "apply_delta": "delta.apply",
    "apply_foreign": "foreign.apply",
    "apply_share": "delta.spread",
    "apply_spread": "delta.spread",
    "apply_xor": "foreign.xor",
    "check_card": "presentation.writing",
    "check_licenses": "licensing.clearance",
    "compare": "comparison",
    "convert": "conversion",
    "convert_share": "conversion.spread",
    "convert_spread": "conversion.spread",
    "fetch": "fetching",
    "finish_apply": "delta.spread",
    "finish_convert": "conversion.spread",
    "finish_make": "delta.making.spread",
    "identify": "identification",
    "import_delta": "foreign.importing",
    "inspect": "inspection",
    "load_into": "delta.load",
    "make_delta": "delta.making.make",
    "make_share": "delta.making.spread",
    "make_spread": "delta.making.spread",
    "measure": "planning.measure",
    "narrowest": "comparison",
    "open_delta": "delta.open",
    "open_view": "delta.view",
    "plan": "planning.planner",
    "plan_apply": "delta.apply",
    "plan_foreign": "foreign.apply",
    "plan_publish": "publication",
    "preflight": "foreign.preflight",
    "publish": "publication",
    "report": "reporting",
    "sign": "sealing",
    "swap_in": "delta.swap",
    "verify": "verification",
    "write_card": "presentation.writing",
}

__all__ = [
    "Add",
    "ApplyPlan",
    "ApplyResult",
    "Authenticity",
    "BaseMismatchError",
    "CardResult",
    "Clearance",
    "ConvertResult",
    "ConvertShare",
    "Diff",
    "Fetched",
    "FileView",
    "Finding",
    "ForeignPlan",
    "ForeignResult",
    "FormatError",
    "HubError",
    "Identification",
    "ImportResult",
    "Inspection",
    "IntegrityError",
    "LicenseError",
    "Licensing",
    "Machine",
    "MakeResult",
    "OpenDelta",
    "PartResult",
    "Plan",
    "Policy",
    "Preflight",
    "PrivateKey",
    "Progress",
    "PublicKey",
    "PublishPlan",
    "Published",
    "Rates",
    "ReleaseKitError",
    "ReportResult",
    "RuleFinding",
    "SignResult",
    "SignatureError",
    "Swapped",
    "Ulp",
    "UsageError",
    "Verification",
    "View",
    "Wishes",
    "apply_delta",
    "apply_foreign",
    "apply_share",
    "apply_spread",
    "apply_xor",
    "check_card",
    "check_licenses",
    "compare",
    "convert",
    "convert_share",
    "convert_spread",
    "fetch",
    "finish_apply",
    "finish_convert",
    "finish_make",
    "identify",
    "import_delta",
    "inspect",
    "load_into",
    "make_delta",
    "make_share",
    "make_spread",
    "measure",
    "narrowest",
    "open_delta",
    "open_view",
    "plan",
    "plan_apply",
    "plan_foreign",
    "plan_publish",
    "preflight",
    "publish",
    "report",
    "sign",
    "swap_in",
    "verify",
    "write_card",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
