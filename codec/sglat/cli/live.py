"""`sgl-live`: a call with a known person, 8 kbit/s of motion from one end to the other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sglat.cli.common import new_app, run, say
from sglat.cli.options import (
    Label,
    LabelText,
    Marked,
    MarksItself,
    Sign,
    SignCertificate,
    SignKey,
    check_word,
    chosen_label,
    chosen_signer,
)
from sglat.errors import UsageError

if TYPE_CHECKING:
    from sglat.live.camera import Camera
    from sglat.live.capture import Follower, StagedFollower
    from sglat.live.look import Look
    from sglat.live.screens import Screen
    from sglat.live.sound import SoundSource
    from sglat.marks.marking import MarkChoice

app = new_app(
    "A call with a known person over UDP: sealed, 8 kbit/s of motion.", has_subcommands=True
)

PORT: Final = 5004  # of RTP, RFC 3551
WATCHED: Final = 0.08  # seconds that a frame may be late where somebody watches …
KEPT: Final = 5.0  # … and where a file alone is written
KEY_VARIABLE: Final = "SGLAT_PASSPHRASE"
KeyFile = Annotated[
    Path | None, typer.Option("--key", help="File of 32 bytes or 64 hexadecimal digits.")
]
Passphrase = Annotated[
    str | None,
    typer.Option(help=f"In place of --key; {KEY_VARIABLE} in the environment is taken too."),
]
Stats = Annotated[Path | None, typer.Option(help="Write latency, rate and losses as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No messages but errors.")]


@app.command()
def send(
    identity: Annotated[Path, typer.Option(help="A .sglat file with the person's identity.")],
    to: Annotated[str, typer.Option(metavar="HOST:PORT", help="The receiver.")],
    camera: Annotated[
        str,
        typer.Option(
            metavar="N|FILE|-",
            help="Camera number, video played at its rate, .sglat whose motion is sent, or a video "
            "stream on standard input.",
        ),
    ] = "0",
    key: KeyFile = None,
    passphrase: Passphrase = None,
    rate: Annotated[
        float, typer.Option(min=3, max=64, help="kbit/s of motion with all headers.")
    ] = 7.8,
    frames: Annotated[
        int | None,
        typer.Option(min=1, max=4, help="Frames in a packet; default: those of 80 ms."),
    ] = None,
    sound: Annotated[
        bool, typer.Option("--sound", help="Send the sound of the video too.")
    ] = False,
    microphone: Annotated[
        str | None, typer.Option(help="Send the sound of this input device, by FFmpeg's name.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the receiver.")] = 60.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    bundle: Annotated[
        str | None, typer.Option(help="Folder or name of the weights; default: the identity's own.")
    ] = None,
    stats: Stats = None,
    quiet: Quiet = False,
) -> None:
    """Follow a person and send motion; the identity goes along once."""
    from sglat.live.camera import open_camera
    from sglat.live.look import read_look
    from sglat.live.sender import SendConfig, Sender

    host, port = parse_place(to)
    secret = choose_key(key, passphrase)
    known = read_look(identity)
    source = open_camera(camera, known)
    look = read_look(identity, source.frame_rate)
    config = SendConfig(host=host, port=port, wait_seconds=wait, frames_a_packet=frames, rate=rate)

    async def call() -> None:
        sender = Sender(
            config,
            key=secret,
            look=look,
            camera=source,
            follower=choose_follower(look, identity, camera, bundle, device, frames),
            sound=choose_sound(source, camera, sound, microphone),
            say=(lambda line: None) if quiet else say,
        )
        try:
            await sender.run()
        finally:
            keep_stats(stats, sender.describe())

    run_call(call())


@app.command()
def receive(
    target: Annotated[
        str, typer.Argument(help="A video file, or - for raw RGB; default: none.")
    ] = "",
    listen: Annotated[
        str, typer.Option(metavar="[HOST:]PORT", help="Where senders connect, TCP and UDP.")
    ] = str(PORT),
    key: KeyFile = None,
    passphrase: Passphrase = None,
    window: Annotated[bool, typer.Option("--window", help="Show it in a window.")] = False,
    virtual_camera: Annotated[
        bool,
        typer.Option(
            "--virtual-camera", help="Show it as a camera; needs pyvirtualcam, which is GPL-2.0."
        ),
    ] = False,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE.sglat", help="Keep what arrived.")
    ] = None,
    stay: Annotated[
        bool, typer.Option("--stay", help="Wait for further calls when one is over.")
    ] = False,
    size: Annotated[
        int | None, typer.Option(min=16, max=4096, help="Side of the pictures in pixels.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    bundle: Annotated[
        str | None, typer.Option(help="Folder or name of the weights; default: the identity's own.")
    ] = None,
    sign: Sign = None,
    sign_cert: SignCertificate = None,
    sign_key: SignKey = None,
    is_marked: Marked = True,
    label: Label = None,
    label_text: LabelText = None,
    marks_itself: MarksItself = False,
    stats: Stats = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
    quiet: Quiet = False,
) -> None:
    """Take one sender's motion, render it, and show or keep it."""
    from sglat.bundles.bundle import load_bundle
    from sglat.files import refuse_existing
    from sglat.live.receiver import ReceiveConfig, Receiver
    from sglat.live.render import PersonPainter
    from sglat.live.screens import WindowScreen
    from sglat.marks.marking import MarkChoice
    from sglat.networks.devices import choose_device

    host, port = parse_place(listen, default_host="0.0.0.0")
    secret = choose_key(key, passphrase)
    check_word(is_marked, label, marks_itself)
    if not (target or window or virtual_camera or record):
        raise UsageError(
            "no-output", "expected a file, -, --window, --virtual-camera or --record, found none"
        )
    files = [Path(target)] if target not in ("", "-") else []
    files += [record] if record is not None else []
    if stay and files:
        raise UsageError("bad-options", "a file holds one call: leave out --stay or the files")
    for path in files:
        refuse_existing(path, force=force)
    if sign and not files:
        raise UsageError("bad-options", "--sign needs a file: raw frames and windows have no place")
    signer, unsigned = chosen_signer(sign, sign_cert, sign_key, is_media=target not in ("", "-"))
    marks = MarkChoice(
        has_watermark=is_marked, label=chosen_label(label, label_text),
        signer=signer if files else None,
    )  # fmt: skip
    windows: list[Screen] = [WindowScreen()] if window and not stay else []
    weights = load_bundle(bundle, choose_device(device)) if bundle else None
    is_watched = window or virtual_camera or target == "-"

    def make_screens(look: Look, has_sound: bool) -> list[Screen]:
        return windows or open_screens(
            look, target, has_sound=has_sound, force=force, marks=marks,
            has_window=window, has_camera=virtual_camera,
        )  # fmt: skip

    async def call() -> None:
        receiver = Receiver(
            ReceiveConfig(
                host=host,
                port=port,
                record=record,
                force=force,
                is_once=not stay,
                patience_seconds=WATCHED if is_watched else KEPT,
                marks=marks,
            ),
            key=secret,
            make_painter=lambda look: PersonPainter(look, bundle=weights, device=device, side=size),
            make_screens=make_screens,
            say=(lambda line: None) if quiet else say,
        )
        stop_on_signals(receiver.stop)
        try:
            await receiver.run()
        finally:
            keep_stats(stats, receiver.describe())

    run_call(call())
    if not quiet:
        for line in [*file_notes(target, record, marks), *(unsigned if files else [])]:
            say(line)


def parse_place(text: str, *, default_host: str | None = None) -> tuple[str, int]:
    """Return host and port of `host:port`, `[::1]:port` or, with a default host, `port`.

    Raises:
        UsageError: anything else.
    """
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or default_host or ""
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        form = "host:port" if default_host is None else "port or host:port"
        raise UsageError("bad-address", f"expected {form}, found {text!r}")
    return host, int(port)


def choose_key(file: Path | None, passphrase: str | None) -> bytes:
    """Return the key of a call.

    Raises:
        UsageError: none was given, or two.
    """
    from sglat.live.secure import key_from_file, key_from_passphrase

    passphrase = passphrase or (None if file else os.environ.get(KEY_VARIABLE))
    if (file is None) == (passphrase is None):
        raise UsageError(
            "bad-key", "expected one of --key FILE and --passphrase TEXT, the same at both ends"
        )
    return key_from_file(file) if file is not None else key_from_passphrase(passphrase or "")


def choose_follower(
    look: Look, identity: Path, camera: str, bundle: str | None, device: str, frames: int | None
) -> Follower | StagedFollower:
    """Return what turns the frames of a camera into motion; with more than one of them in a packet,
    every second one is solved."""
    from sglat.bundles.bundle import bundle_for, load_bundle
    from sglat.live.capture import StoredMotion
    from sglat.live.rtp import CLOCK_RATE
    from sglat.networks.devices import choose_device

    if camera.lower().endswith(".sglat"):
        return StoredMotion()
    import torch

    from sglat.live.follower import KnownFollower

    torch.set_num_threads(1)  # small pictures gain nothing from more
    chosen = choose_device(device)
    weights = load_bundle(bundle, chosen) if bundle else bundle_for(look.header, chosen)
    rate = CLOCK_RATE / look.frame_ticks
    return KnownFollower(identity, weights, rate, skipped=0 if frames == 1 else 1)


def choose_sound(
    source: Camera, camera: str, is_wanted: bool, microphone: str | None
) -> SoundSource | None:
    """Return the sound of a call; None for none."""
    from sglat.live.camera import FileCamera
    from sglat.live.sound import microphone as open_microphone
    from sglat.live.sound import sound_of

    if microphone is not None:
        return open_microphone(microphone)
    if not is_wanted:
        return None
    found = sound_of(Path(camera), source.zero_seconds) if isinstance(source, FileCamera) else None
    if found is None:
        raise UsageError("no-sound", f"expected a video with sound for --sound, found {camera}")
    return found


def open_screens(
    look: Look,
    target: str,
    *,
    has_sound: bool,
    force: bool,
    has_window: bool,
    has_camera: bool,
    marks: MarkChoice,
) -> list[Screen]:
    """Return the outputs of a call."""
    from sglat.live import screens
    from sglat.marks.marking import Marker

    made: list[Screen] = []
    if target == "-":
        made.append(screens.PipeScreen())
    elif target:
        made.append(
            screens.FileScreen(
                Path(target), frame_ticks=look.frame_ticks, marker=Marker(look.shown, marks),
                has_sound=has_sound, force=force,
            )
        )  # fmt: skip
    if has_window:
        made.append(screens.WindowScreen())
    if has_camera:
        made.append(screens.VirtualCameraScreen(look.frame_ticks))
    return made


def file_notes(target: str, record: Path | None, marks: MarkChoice) -> list[str]:
    """Return what a user should know of the signatures of the files of a call, one line each."""
    from sglat.marks.marking import signing_notes

    lines, signer = [], marks.signer
    if target not in ("", "-") and Path(target).exists():
        lines += [f"{target}: {note}" for note in signing_notes(signer, Path(target))]
    if record is not None and signer is not None and record.exists():
        is_fit = signer.algorithm == "ed25519"
        how = f"signed by {signer.title}" if is_fit else "not signed: it needs an Ed25519 key"
        lines.append(f"{record}: {how}")
    return lines


def keep_stats(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures where they are wanted."""
    from sglat.live.stats import write_stats

    if path is not None:
        write_stats(path, figures)


def stop_on_signals(stop: Any) -> None:
    """Finish the outputs when the user interrupts or ends the program."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stop)


def run_call(call: Coroutine[Any, Any, None]) -> None:
    """Run one end of a call."""
    asyncio.run(call)


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
