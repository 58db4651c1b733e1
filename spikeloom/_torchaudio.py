"""torchaudio without its compiled extension, where that does not load.

The extension of torchaudio 2.11 is linked to libraries that a CPU build of torch does not have, so `import torchaudio`
raises OSError there, and RuntimeError next to a torch for another CUDA (2.15); `from transformers import BertModel`,
which imports torchaudio, fails with it. torchaudio itself runs without the extension. `tolerate_missing_extension`
leaves everything as it is until `torchaudio._extension` is imported, and changes nothing where that succeeds. What it
does not provide: forced alignment, which needs the extension and says so when it is called.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["tolerate_missing_extension"]

EXTENSION = "torchaudio._extension"


def tolerate_missing_extension() -> None:
    """Let `import torchaudio` succeed where its compiled extension does not load. Imports nothing by itself."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds `torchaudio._extension` where Python does, with a loader that survives both."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.loader.exec_module(module)
        except (OSError, RuntimeError) as error:
            # The names that the rest of torchaudio imports, with the values they have in a build without extension.
            absent = {"_IS_TORCHAUDIO_EXT_AVAILABLE": False, "_IS_ALIGN_AVAILABLE": False}
            vars(module).update(absent, fail_if_no_align=_needs_extension(str(error)))


def _needs_extension(reason: str) -> Callable[[Any], Callable[..., Any]]:
    """The decorator of functions that cannot run without the extension."""

    def decorate(function: Any) -> Callable[..., Any]:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(
                f"{function.__name__} needs the compiled extension of torchaudio, which does not load here ({reason}); "
                "install a torchaudio built for this torch"
            )

        return fail

    return decorate
