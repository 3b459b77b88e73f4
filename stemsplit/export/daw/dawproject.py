"""DAWproject, the session exchange format of Bitwig Studio, Studio One, Cubase and others.

It is a zip of `project.xml`, `metadata.xml` and the audio files; its schemas are at
https://github.com/bitwig/dawproject. They do not state which audio formats programs must support. WAV and
FLAC files are included unchanged, and all others as WAV, because decoders of lossy formats disagree on where
the audio starts.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

from stemsplit.audio.reader import Reader
from stemsplit.audio.writer import Encoding, Writer
from stemsplit.defaults import VERSION
from stemsplit.export.daw.session import BEATS_PER_BAR, Session
from stemsplit.output.template import file_names

FORMAT_VERSION = "1.0"
AS_THEY_ARE = (".wav", ".flac")


def write(session: Session, path: Path) -> None:
    """Write a session and its audio to a file. Memory does not grow with their length.

    Raises:
        StemsplitError: a stem cannot be read.
        OSError: the file cannot be written.
    """
    names = file_names([track.name for track in session.tracks])
    suffixes = [track.path.suffix.lower() for track in session.tracks]
    suffixes = [suffix if suffix in AS_THEY_ARE else ".wav" for suffix in suffixes]
    inside = [f"audio/{name}{suffix}" for name, suffix in zip(names, suffixes, strict=True)]
    with zipfile.ZipFile(path, "w", strict_timestamps=False) as archive:
        archive.writestr(zipfile.ZipInfo("metadata.xml"), _document(_metadata(session)))
        archive.writestr(zipfile.ZipInfo("project.xml"), _document(_project(session, inside)))
        for track, name in zip(session.tracks, inside, strict=True):
            _add(archive, track.path, name, path)


def _add(archive: zipfile.ZipFile, sound: Path, name: str, part: Path) -> None:
    if sound.suffix.lower() in AS_THEY_ARE:
        archive.write(sound, name)
        return
    reader = Reader(sound)
    copy = part.with_name(f"{part.name}.wav")  # on the same disk as the session
    writer = Writer(copy, reader.signal, Encoding("32f"))
    try:
        with writer:
            for block in reader:
                writer.write(block)
        archive.write(copy, name)
    finally:
        copy.unlink(missing_ok=True)


def _metadata(session: Session) -> ET.Element:
    root = ET.Element("MetaData")
    ET.SubElement(root, "Title").text = session.name
    ET.SubElement(root, "Comment").text = session.remark
    return root


def _project(session: Session, files: list[str]) -> ET.Element:
    root = ET.Element("Project", version=FORMAT_VERSION)
    ET.SubElement(root, "Application", name="stemsplit", version=VERSION)
    transport = ET.SubElement(root, "Transport")
    ET.SubElement(transport, "Tempo", id="tempo", name="Tempo", unit="bpm", value=str(session.bpm))
    ET.SubElement(transport, "TimeSignature", id="meter", numerator=str(BEATS_PER_BAR), denominator="4")
    structure = ET.SubElement(root, "Structure")
    arrangement = ET.SubElement(root, "Arrangement", id="arrangement")
    lanes = ET.SubElement(arrangement, "Lanes", timeUnit="seconds")
    _tempo_map(arrangement, session)
    for number, (track, file) in enumerate(zip(session.tracks, files, strict=True), 1):
        shown, seconds = {"name": track.name, "color": track.colour}, str(session.seconds(track))
        row = ET.SubElement(structure, "Track", shown, id=f"track{number}", contentType="audio")
        _channel(row, {"id": f"channel{number}", "role": "regular", "destination": "master"})
        clips = ET.SubElement(lanes, "Clips", track=f"track{number}", timeUnit="seconds")
        whole = {"time": "0.0", "duration": seconds, "playStart": "0.0", "contentTimeUnit": "seconds"}
        clip = ET.SubElement(clips, "Clip", shown | whole)
        form = {"channels": str(session.channels), "sampleRate": str(session.sample_rate)}
        audio = ET.SubElement(clip, "Audio", form, timeUnit="seconds", duration=seconds)
        ET.SubElement(audio, "File", path=file, external="false")
    row = ET.SubElement(structure, "Track", id="mastertrack", name="Master", contentType="audio")
    _channel(row, {"id": "master", "role": "master"})
    return root


def _tempo_map(arrangement: ET.Element, session: Session) -> None:
    if not session.tempo_map:
        return
    points = ET.SubElement(arrangement, "TempoAutomation", timeUnit="beats", unit="bpm")
    ET.SubElement(points, "Target", parameter="tempo")
    for change in session.tempo_map:
        values = {"time": f"{change.beat}.0", "value": f"{change.bpm:.10f}", "interpolation": "hold"}
        ET.SubElement(points, "RealPoint", values)


def _channel(track: ET.Element, attributes: dict[str, str]) -> None:
    # Two channels for mono stems too: some mixers attenuate a mono channel by 3 dB in the center.
    channel = ET.SubElement(track, "Channel", attributes, audioChannels="2")
    ET.SubElement(channel, "Pan", unit="normalized", min="0.0", max="1.0", value="0.5")
    ET.SubElement(channel, "Volume", unit="linear", min="0.0", max="2.0", value="1.0")


def _document(root: ET.Element) -> bytes:
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
    return document
