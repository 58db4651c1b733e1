"""`spikeloom bench gate`: the synthetic recovery test of CET-MAE, against the limits of a correct model."""

from pathlib import Path

from spikeloom.accel.common.files import write_json
from spikeloom.bci.synthetic.recovery import SyntheticRecoveryConfig
from spikeloom.pipelines.config.bench import GateBenchConfig


def print_gate(config: GateBenchConfig, out: str | None) -> None:
    """One training for each strength, seed and variant; a line a split, then whether the limits hold."""
    found = []
    print("strength seed variant            split  loss   top-1  top-5  rank   p      MSE    text")
    for strength in config.strengths:
        for seed in config.seeds:
            steps = config.steps or SyntheticRecoveryConfig.steps
            gate = SyntheticRecoveryConfig(strength=strength, seed=seed, steps=steps).build()
            for variant in config.variants:
                result = gate.run(variant)
                for split in ("valid", "test"):
                    s = result[split]
                    print(
                        f"{strength:<8g} {seed:<4d} {variant:18s} {split:5s} {s['loss']:6.3f} {s['top1']:6.3f} "
                        f"{s['top5']:6.3f} {s['same_length_rank']:6.3f} {s['p']:6.3f} {s['mse_ratio']:6.3f} "
                        f"{s['text_gain']:6.3f}"
                    )  # fmt: skip
                missed = result["missed"]
                print(f"    {'limits missed: ' + '; '.join(missed) if missed else 'all limits hold'}", flush=True)
                found.append(result)
                if out is not None:
                    write_json(Path(out), found)
