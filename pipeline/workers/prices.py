"""What an hour of a machine costs, and the options that say so."""

from __future__ import annotations

from dataclasses import dataclass

from trackmill.pipeline.console.options import JobParser, Options, price


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What an hour costs, in USD.

    Args:
        gpu, cpu: of one GPU, of one CPU core; None where nobody said.
    """

    gpu: float | None = None
    cpu: float | None = None

    def of(self, gpu_hours: float, cpu_hours: float) -> float | None:
        """The price of so many hours; None where there is no price for what the pool consists of.

        Without a GPU in the pool the price of one says nothing, and 0 USD would be wrong.
        """
        if self.cpu is None and (self.gpu is None or not gpu_hours):
            return None
        return gpu_hours * (self.gpu or 0.0) + cpu_hours * (self.cpu or 0.0)

    def what(self, gpus: float) -> str:
        """What is in the price of a pool with so many GPUs, or why it has none; empty where nobody asked."""
        if self.cpu is None and self.gpu is not None and not gpus:
            return "unknown: there is no GPU in this pool; give --usd-per-cpu-hour"
        given = [("GPU-hours", self.gpu if gpus else None), ("CPU-hours", self.cpu)]
        return " and ".join(name for name, price in given if price is not None)


NO_PRICES = Prices()


def add_price_options(p: JobParser) -> None:
    """`--usd-per-gpu-hour` and `--usd-per-cpu-hour`."""
    what = "adds a price to --plan-only"
    p.option("--usd-per-gpu-hour", type=price, metavar="USD", help=f"{what}: of the GPUs of the pool")
    p.option("--usd-per-cpu-hour", type=price, metavar="USD", help=f"{what}: of the CPU cores that it reserves")


def prices_of(options: Options) -> Prices:
    """What these options say."""
    return Prices(gpu=options.usd_per_gpu_hour, cpu=options.usd_per_cpu_hour)
