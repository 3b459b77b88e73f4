"use strict";
(() => {
  const DECODED_BYTES = 2 ** 30; // what all sounds may take in memory: some ten minutes of five stereo tracks
  const STEP = 5; // seconds
  const APART = 0.04; // seconds between <audio> elements that is heard as an echo

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

  /** All sounds decoded, and started at one time: in step to the sample. */
  class Decoded {
    async open() {
      const decode = async (track) => {
        const data = await (await fetch(track.sound.src)).arrayBuffer();
        track.buffer = await context.decodeAudioData(data);
      };
      await Promise.all(sounding.map(decode));
    }

    start(at) {
      const when = context.currentTime + 0.02;
      this.origin = when - at;
      this.sources = sounding.map((track) => {
        const source = new AudioBufferSourceNode(context, { buffer: track.buffer });
        source.connect(track.node);
        source.start(when, at);
        return source;
      });
    }

    stop() {
      for (const source of this.sources) source.disconnect();
    }

    move(to) {
      this.stop();
      this.start(to);
    }

    now() {
      return context.currentTime - this.origin;
    }
  }

  /** Long tracks, decoded as they play: in step to some hundredths of a second. */
  class Streamed {
    async open() {
      const load = async (track) => {
        const blob = await (await fetch(track.sound.src)).blob();
        track.sound.src = URL.createObjectURL(blob);
        track.sound.preload = "auto";
        context.createMediaElementSource(track.sound).connect(track.node);
        await new Promise((resolve, reject) => {
          track.sound.oncanplay = resolve;
          track.sound.onerror = () => reject(track.sound.error);
          track.sound.load();
        });
      };
      await Promise.all(sounding.map(load));
    }

    start(at) {
      this.move(at);
      // A pause that comes before the sound does ends the promise, which is as it should be.
      const failed = (error) => error.name === "AbortError" || tell(error.message);
      for (const { sound } of sounding) sound.play().catch(failed);
      this.following = setInterval(() => {
        for (const { sound } of sounding) {
          if (Math.abs(sound.currentTime - this.now()) > APART) sound.currentTime = this.now();
        }
      }, 2000);
    }

    move(to) {
      for (const { sound } of sounding) sound.currentTime = to;
    }

    stop() {
      clearInterval(this.following);
      for (const { sound } of sounding) sound.pause();
    }

    now() {
      return sounding[0].sound.currentTime;
    }
  }

  let context, output, engine, opening;
  let playing = false;
  let next; // showing of the time
  let place = 0; // seconds, while nothing plays

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
    const ready = bytes > DECODED_BYTES ? new Streamed() : new Decoded();
    await ready.open();
    engine = ready;
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
    engine.start(place);
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
    const follow = (event) => {
      const { left, width } = surface.getBoundingClientRect();
      seek(((event.clientX - left) / width) * duration);
    };
    surface.onpointerdown = (event) => {
      if (event.button) return;
      surface.setPointerCapture(event.pointerId);
      follow(event);
    };
    surface.onpointermove = (event) => surface.hasPointerCapture(event.pointerId) && follow(event);
  }

  const KEYS = {
    " ": () => find("#play").click(),
    ArrowLeft: () => seek(currentTime() - STEP),
    ArrowRight: () => seek(currentTime() + STEP),
    Home: () => seek(0),
  };

  document.onkeydown = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { target } = event;
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
    const track = digit && tracks[Number(digit[1])];
    const theirs = target.matches("button") ? event.key === " " : target.matches(".gain input") && event.key !== " ";
    if (track) toggle(track, event.shiftKey && track !== mixture ? "muted" : "solo");
    else if (KEYS[event.key] && !theirs) KEYS[event.key]();
    else return;
    event.preventDefault();
  };

  find(".sounds").hidden = true;
  player.hidden = false;
  changed();
  showTime();

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
      return engine instanceof Decoded;
    },
    gains: () => Object.fromEntries(sounding.map((track) => [track.name, track.node?.gain.value ?? level(track)])),
  };
})();
