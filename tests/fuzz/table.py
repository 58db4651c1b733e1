"""Every parser by its name, and the functions that read a file and are not fuzzed."""

from tests.fuzz import chip, eeg, pages, released, runs, speech, texts, vision, zuco

GROUPS = (vision, speech, eeg, zuco, texts, chip, runs, pages, released)
PARSERS = {p.name: p for group in GROUPS for p in group.PARSERS}

OURS = "a file of the installed package"
JUST_WRITTEN = "a file that this process or its jobs have just written"
DIGEST = "any content is right: a digest of it"
EXEMPT = {  # path:function -> why no parser covers it
    "accel/common/bounded.py:serve": "requests of the process that started it",
    "accel/common/bounded.py:_try": "the system's account of this process",
    "accel/common/files.py:_sync": "no content is read",
    "accel/common/report.py:_template": OURS,
    "accel/interop/onnx.py:_define": JUST_WRITTEN,
    "accel/spiking/kernels/compiler.py:_intact": "compared with a digest before it is loaded (test_kernel_cache.py)",
    "accel/spiking/kernels/compiler.py:_share_openmp": "the system's account of this process",
    "accel/spiking/kernels/compiler.py:levels": "the system's account of this processor",
    "accel/spiking/kernels/compiler.py:build": "compared with a digest before it is loaded (test_kernel_cache.py)",
    "bci/raw/bids.py:_mark_reference": JUST_WRITTEN,
    "bci/raw/bids.py:_write_record": JUST_WRITTEN,
    "bci/raw/bids.py:write_bids": JUST_WRITTEN,
    "bci/zuco/cache.py:digest": OURS,
    "bci/zuco/splits.py:save": JUST_WRITTEN,
    "pipelines/api/models.py:_presets": OURS,
    "pipelines/commands/convert.py:write": DIGEST,
    "pipelines/commands/data.py:checksum": DIGEST,
    "pipelines/commands/data.py:folder_of": OURS,
    "pipelines/commands/engines.py:collect": JUST_WRITTEN,
    "pipelines/config/declared.py:__init__": OURS,
    "pipelines/config/files.py:describe": OURS,
    "pipelines/datasets/download.py:_receive": DIGEST,
    "pipelines/datasets/osf.py:_listing": "an answer of a server, no file (test_fetch.py)",
    "pipelines/datasets/vision.py:archive_problems": DIGEST,
    "pipelines/datasets/zuco_files.py:bids": "kept in a new file as it is, whatever object it is",
    "pipelines/domains/released_eeg.py:write": DIGEST,
    "pipelines/domains/spikcommander.py:write": DIGEST,
    "pipelines/reports/jobs.py:_results": JUST_WRITTEN,
    "pipelines/reports/jobs.py:done": JUST_WRITTEN,
    "pipelines/reports/sweeps.py:collecting": JUST_WRITTEN,
    "pipelines/reports/sweeps.py:compare_designs": JUST_WRITTEN,
    "pipelines/serving/page.py:build": "no file: a field of the page; uploads reach readers that are fuzzed",
    "pipelines/training/claim.py:claim": "result.json of a finished run, printed as it is, whatever object it is",
    "pipelines/training/claim.py:locked": "no content is read",
    "pipelines/training/distillation.py:complete": "the row of the record that require_unchanged has checked",
    "pipelines/training/launch.py:_last_line": JUST_WRITTEN,
    "pipelines/training/run_dir.py:hyperparameters": "no file: values of this process through JSON",
    "pipelines/training/run_names.py:_find_data": OURS,
    "speech/datasets/audio.py:_foreign": "64 bytes for a message; the mutations of recordings reach it",
    "speech/datasets/spike_fields.py:read_through": "in a process of its own; what it meets, the reader meets again",
}
