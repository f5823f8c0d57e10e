"""`harp-replay predict`: how long a recorded run would take over another network."""

from __future__ import annotations

import json
from typing import Any

import click

from harp_client import quantities
from harp_client.errors import HarpError
from harp_replay.events import events
from harp_replay.network import UNLIMITED, Model, Network, Recorded, foretold


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@click.option(
    "--rtt",
    "trips",
    multiple=True,
    metavar="TIME",
    help="Round trip to the server (0.2ms, 150us); give it again for several.  "
    "[default: as recorded]",
)
@click.option("--bandwidth", metavar="RATE", help="Each way (10Gbit).  [default: unlimited]")
@click.option(
    "--recorded-rtt",
    metavar="TIME",
    help="Round trip of the recording.  [default: as the trace says]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the times as JSON, in seconds.")
def predict(
    trace: str,
    trips: tuple[str, ...],
    bandwidth: str | None,
    recorded_rtt: str | None,
    as_json: bool,
) -> None:
    """Compute how long the run of TRACE would take over another network.

    It follows from what the trace says of who waited for what. A program that polls is not
    modelled: it would poll longer. Record near the server, where waits are mostly its own work.

    \b
    Examples:
      harp-replay predict --rtt 0.2ms --bandwidth 10Gbit out.htrace
      harp-replay predict --rtt 1ms --rtt 10ms --rtt 30ms out.htrace
    """
    pace = UNLIMITED if bandwidth is None else quantities.bit_rate(bandwidth) / 8e9
    recorded = Recorded().count(events(trace))
    here = recorded.round_trip
    if recorded_rtt is not None:
        here = quantities.nanoseconds(recorded_rtt)
    wanted = [quantities.nanoseconds(trip) for trip in trips] or [here]
    networks = [Network(trip, pace) for trip in wanted]
    models = foretold(events(trace), networks, Network(here), recorded.pace)
    if models[0].waits == 0 and models[0].answers:
        raise HarpError(
            f"{trace} does not say what the program waited for",
            "record the program itself (harp-run --trace); this was recorded on a server",
            2,
        )
    found = [as_data(model) for model in models]
    if as_json:
        click.echo(json.dumps({"recorded_rtt_seconds": here / 1e9, "runs": found}, indent=2))
        return
    click.echo(
        f"recorded: {found[0]['recorded_seconds']:.3f} s, of which waiting "
        f"{found[0]['recorded_waiting_seconds']:.3f} s, at a round trip of {here / 1e6:.3f} ms"
    )
    for run in found:
        click.echo(
            f"at {run['rtt_seconds'] * 1e3:g} ms{f' and {bandwidth}' if bandwidth else ''}: "
            f"{run['seconds']:.3f} s, of which waiting {run['waiting_seconds']:.3f} s in "
            f"{run['waits']:,} waits"
        )


def as_data(model: Model) -> dict[str, Any]:
    """The run over a network, as `--json` prints it."""
    network = model.network
    bits = network.bandwidth * 8e9
    return {
        "rtt_seconds": network.round_trip / 1e9,
        "bits_per_second": None if network.bandwidth == UNLIMITED else bits,
        "seconds": model.time / 1e9,
        "waits": model.waits,
        "waiting_seconds": model.waited / 1e9,
        "recorded_seconds": model.recorded / 1e9,
        "recorded_waiting_seconds": model.recorded_waited / 1e9,
    }
