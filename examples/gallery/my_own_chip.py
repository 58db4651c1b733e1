"""A chip of one's own: a preset with a few numbers changed, or a YAML file, priced against the original."""

from pathlib import Path

import spikeloom

Path("mine.yaml").write_text("""\
base: cacti28
name: mine
summary: cacti28 with eight cores and cheaper off-chip memory
cores:
  count: {value: 8, unit: cores, source: my design, node_nm: 28, tier: assumed}
  mesh: {value: [2, 4], unit: cores, source: my design, node_nm: 28, tier: assumed}
dram:
  energy_pj_per_bit: {value: 2.0, unit: pJ/bit, source: my data sheet, node_nm: 28, tier: assumed}
""", encoding="utf-8")  # fmt: skip

for chip in ("cacti28", "mine.yaml"):
    report = spikeloom.simulate("s_vgg16", chip=chip, batch_size=4)
    print(f"{chip:10s} {report.energy_per_iteration_pj / 1e9:7.1f} mJ  {report.time_per_iteration_ms:7.2f} ms")
