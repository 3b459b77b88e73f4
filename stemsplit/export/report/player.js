"use strict";
(() => {
  const DECODED_BYTES = 2 ** 30; // what all sounds may take in memory: some ten minutes of five stereo tracks
  const STEP = 5; // seconds
  const SMALL_STEP = 0.5;
  const SHORTEST_LOOP = 0.1; // seconds
  const DRAG = 6; // pixels: what moves less is a click

  const find = (selector, root = document) => root.querySelector(selector);
  const player = find(".player");
  const duration = Number(find("main").dataset.seconds);
  const position = find("#position");
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  const tracks = [...document.querySelectorAll(".track")].map((row) => ({
    row,
    name: row.dataset.name,
    sound: find(`audio[data-sound="${row.dataset.sound}"]`),
    solo: false,
    muted: false,
    gain: 1,
  }));
  const [mixture, ...stems] = tracks;
  const sounding = tracks.filter((track) => track.sound);

  /** How loud a track is to be. A mixture without a sound of its own is all stems as they are. */
  function level(track) {
    if (mixture.solo) return Number(mixture.sound ? track === mixture : true);
    if (track === mixture || track.muted) return 0;
    return track.solo || !stems.some((stem) => stem.solo) ? track.gain : 0;
  }

  let context, output, engine, opening;
  let playing = false;
  let next; // showing of the time
  let place = 0; // seconds, while nothing plays
  let speed = 1;
  let loop = null; // from start to end, in seconds
  let looping = false;

  /** Browsers let a page make sound only after a click or a key, so that nothing is opened before. */
  async function open() {
    context = new AudioContext();
    output = new GainNode(context);
    output.connect(context.destination);
    for (const track of sounding) {
      track.node = new GainNode(context, { gain: level(track) });
      track.node.connect(output);
    }
    const bytes = duration * context.sampleRate * 8 * sounding.length;
    const kind = bytes > DECODED_BYTES ? engines.Streamed : engines.Decoded;
    const ready = new kind(context, sounding, duration);
    await ready.open();
    engine = ready;
    set();
  }

  /** Let the engine know the speed and the loop. */
  function set() {
    if (!engine) return;
    Object.assign(engine, { speed, loop: looping ? loop : null });
    if (playing) engine.changed();
  }

  const currentTime = () => Math.min(duration, Math.max(0, playing ? engine.now() : place));

  async function play() {
    if (playing) return;
    tell("Decoding …");
    try {
      await (opening ??= open());
      await context.resume();
    } catch (error) {
      tell(`This browser cannot play the sounds: ${error.message}`);
      return;
    }
    tell("");
    if (playing) return;
    if (place >= duration - 0.01) place = 0;
    playing = true;
    engine.start(place, tell);
    show();
  }

  function pause() {
    if (!playing) return;
    place = currentTime();
    playing = false;
    engine.stop();
    show();
  }

  function seek(seconds) {
    place = Math.min(duration, Math.max(0, seconds));
    if (playing) engine.move(place);
    showTime();
  }

  function setSpeed(percent) {
    const slider = find("#speed");
    slider.value = percent; // which keeps it within its limits
    speed = slider.value / 100;
    const text = `${slider.value} %`;
    find("#speed-now").textContent = text;
    slider.setAttribute("aria-valuetext", `${text}, at the same pitch`);
    set();
  }

  /** Set the loop, and play it; what is too short, or null, is none. */
  function setLoop(start, end) {
    const valid = end - start >= SHORTEST_LOOP;
    loop = valid ? { start: Math.max(0, start), end: Math.min(duration, end) } : null;
    toggleLoop(valid);
  }

  function toggleLoop(on) {
    if (on) loop ??= { start: 0, end: duration };
    looping = on;
    showLoop();
    set();
    const now = currentTime();
    if (on && (now < loop.start || now >= loop.end)) seek(loop.start);
  }

  function showLoop(shown = loop) {
    const { style } = document.documentElement;
    style.setProperty("--loop-start", shown ? shown.start / duration : 0);
    style.setProperty("--loop-end", shown ? shown.end / duration : 0);
    find("main").dataset.loop = shown ? (looping || shown !== loop ? "on" : "off") : "none";
    find("#loop").ariaPressed = String(looping);
    const range = loop ? `${exactClock(loop.start)} to ${exactClock(loop.end)}` : "";
    find("#loop-now").textContent = range.replace(" to ", "\u2013");
    find("#said").textContent = loop ? `Loop ${looping ? "on" : "off"}: ${range}` : "No loop";
  }

  function changed() {
    for (const track of tracks) {
      const loudness = level(track);
      // Not at once, which would click.
      track.node?.gain.setTargetAtTime(loudness, context.currentTime, 0.01);
      track.row.classList.toggle("silent", track === mixture ? !mixture.solo : !loudness);
      find(".solo", track.row).ariaPressed = String(track.solo);
      if (track !== mixture) find(".mute", track.row).ariaPressed = String(track.muted);
    }
  }

  function toggle(track, what) {
    track[what] = !track[what];
    if (track !== mixture) mixture.solo = false;
    changed();
  }

  /** Browsers do not download long `data:` addresses: the first click makes a `blob:` of it. */
  async function save(event, sound, link) {
    if (link.href.startsWith("blob:")) return;
    event.preventDefault();
    const here = sound.src.startsWith("blob:");
    link.href = here ? sound.src : URL.createObjectURL(await (await fetch(sound.src)).blob());
    link.click();
  }

  const tell = (text) => (find("#status").textContent = text);

  function clock(seconds) {
    const whole = Math.floor(seconds);
    const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
    if (!parts[0]) parts.shift();
    return parts.map((part, index) => String(part).padStart(index ? 2 : 1, "0")).join(":");
  }

  const exactClock = (seconds) => `${clock(seconds)}.${Math.floor(10 * (seconds % 1))}`;

  function showTime() {
    const now = currentTime();
    const text = clock(now);
    document.documentElement.style.setProperty("--played", now / duration);
    position.value = now;
    if (find("#now").textContent !== text) {
      find("#now").textContent = text;
      position.setAttribute("aria-valuetext", `${text} of ${clock(duration)}`);
    }
  }

  function show() {
    find("#play").textContent = playing ? "Pause" : "Play";
    showTime();
    clearTimeout(next);
    if (playing && engine.now() >= duration) pause();
    else if (playing) next = setTimeout(show, calm ? 500 : 30);
  }

  find("#play").onclick = () => (playing ? pause() : play());
  position.oninput = () => seek(Number(position.value));
  find("#speed").oninput = (event) => setSpeed(event.target.value);

  const LOOP = {
    a: () => setLoop(currentTime(), loop && loop.end > currentTime() ? loop.end : duration),
    b: () => setLoop(loop && loop.start < currentTime() ? loop.start : 0, currentTime()),
    l: () => toggleLoop(!looping),
  };
  find("#loop-start").onclick = LOOP.a;
  find("#loop-end").onclick = LOOP.b;
  find("#loop").onclick = LOOP.l;

  for (const track of tracks) {
    find(".solo", track.row).onclick = () => toggle(track, "solo");
    const link = find(".save", track.row);
    if (link) link.onclick = (event) => save(event, track.sound, link);
    if (track === mixture) continue;
    find(".mute", track.row).onclick = () => toggle(track, "muted");
    const slider = find(".gain input", track.row);
    slider.oninput = () => {
      track.gain = 10 ** (slider.value / 20);
      const text = `${slider.value > 0 ? "+" : ""}${slider.value} dB`.replace("-", "\u2212");
      find("output", track.row).textContent = text;
      slider.setAttribute("aria-valuetext", text);
      changed();
    };
  }

  for (const surface of document.querySelectorAll(".seek")) {
    let from; // where a pointer went down, in pixels
    const time = (x) => {
      const { left, width } = surface.getBoundingClientRect();
      return Math.min(duration, Math.max(0, ((x - left) / width) * duration));
    };
    const dragged = (event) => {
      if (from === undefined || Math.abs(event.clientX - from) < DRAG) return null;
      const [start, end] = [from, event.clientX].map(time).sort((one, other) => one - other);
      return { start, end };
    };
    surface.onpointerdown = (event) => {
      if (event.button) return;
      surface.setPointerCapture(event.pointerId);
      from = event.clientX;
    };
    surface.onpointermove = (event) => from !== undefined && showLoop(dragged(event) ?? loop);
    surface.onpointerup = (event) => {
      if (from === undefined) return;
      const found = dragged(event);
      from = undefined;
      if (found) setLoop(found.start, found.end);
      else seek(time(event.clientX));
    };
    surface.onpointercancel = () => {
      from = undefined;
      showLoop();
    };
  }

  const KEYS = {
    " ": () => find("#play").click(),
    ArrowLeft: ({ shiftKey }) => seek(currentTime() - (shiftKey ? SMALL_STEP : STEP)),
    ArrowRight: ({ shiftKey }) => seek(currentTime() + (shiftKey ? SMALL_STEP : STEP)),
    Home: () => seek(0),
    "-": () => setSpeed(100 * speed - 5),
    "+": () => setSpeed(100 * speed + 5),
    // The key of + without Shift.
    "=": () => setSpeed(100 * speed + 5),
    ...LOOP,
  };

  document.onkeydown = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { target } = event;
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
    const track = digit && tracks[Number(digit[1])];
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const slider = target.matches("input") && target !== position;
    const theirs = target.matches("button") ? key === " " : slider && /^(Arrow|Home)/.test(key);
    if (track) toggle(track, event.shiftKey && track !== mixture ? "muted" : "solo");
    else if (KEYS[key] && !theirs) KEYS[key](event);
    else return;
    event.preventDefault();
  };

  find(".sounds").hidden = true;
  player.hidden = false;
  changed();
  showTime();
  setSpeed(100);
  showLoop();
  find("#said").textContent = "";

  window.stemsplitPlayer = {
    get currentTime() {
      return currentTime();
    },
    get playing() {
      return playing;
    },
    get output() {
      return output;
    },
    get exact() {
      return engine instanceof engines.Decoded;
    },
    get speed() {
      return speed;
    },
    get loop() {
      return looping ? loop : null;
    },
    gains: () => Object.fromEntries(sounding.map((track) => [track.name, track.node?.gain.value ?? level(track)])),
  };
})();
