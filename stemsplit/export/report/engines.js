"use strict";
/** Two ways to play all tracks in step: each has start, move, stop, now, and the settings `speed` and `loop`. */
const engines = (() => {
  const PLAIN = 0.25; // seconds: of a piece that is played as it is
  const STRETCHED = 0.025; // seconds: of one played slower or faster; the shorter, the clearer are attacks
  const FADE = 0.02; // seconds: from a piece to the next
  const SEARCH = 0.02; // seconds, to either side, in which a piece is looked for that continues the one before
  const BLOCK = 0.25; // seconds: of what is scheduled at a time
  const AHEAD = 1.3; // seconds: browsers wake a page in the background once a second
  const APART = 0.04; // seconds between <audio> elements that sounds like an echo
  const COARSE = 4; // samples taken together in the first search

  const drop = ({ sources }) => sources.forEach((source) => source.disconnect());

  /** Return where `sought` lies in `within`: the index at which their normalized correlation is largest. */
  function bestMatch(sought, within, first, last) {
    let best = first;
    let most = -Infinity;
    for (let at = first; at <= last; at++) {
      let product = 0;
      let energy = 1e-9;
      for (let index = 0; index < sought.length; index++) {
        product += sought[index] * within[at + index];
        energy += within[at + index] ** 2;
      }
      const likeness = product / Math.sqrt(energy);
      if (likeness > most) [best, most] = [at, likeness];
    }
    return best;
  }

  function coarser(samples) {
    const found = new Float32Array(Math.floor(samples.length / COARSE));
    for (let index = 0; index < found.length * COARSE; index++) found[Math.floor(index / COARSE)] += samples[index];
    return found;
  }

  /**
   * All sounds decoded, and started at one time: in step to the sample, at any speed.
   *
   * They are played in pieces that fade into one another. At normal speed each piece continues the one before,
   * so that nothing changes. Slower or faster, pieces overlap or leave something out, and a piece may begin
   * somewhat earlier or later, where it is most like what the one before would go on with (WSOLA: Verhelst and
   * Roelands, ICASSP 1993). That is decided for all tracks at once, on their sum as it is played. Positions and
   * lengths are in samples.
   */
  class Decoded {
    speed = 1;
    loop = null;

    constructor(context, tracks, duration) {
      const rate = context.sampleRate;
      Object.assign(this, { context, tracks, rate, end: duration * rate });
      [this.plain, this.stretched, this.block, this.fade, this.reach] = [PLAIN, STRETCHED, BLOCK, FADE, SEARCH].map(
        (seconds) => Math.round(seconds * rate),
      );
      this.rise = Float32Array.from(
        { length: this.fade },
        (_, index) => 0.5 - 0.5 * Math.cos((Math.PI * (index + 0.5)) / this.fade),
      );
    }

    async open() {
      const decode = async (track) => {
        const data = await (await fetch(track.sound.src)).arrayBuffer();
        track.buffer = await this.context.decodeAudioData(data);
      };
      await Promise.all(this.tracks.map(decode));
    }

    begin(at) {
      this.blocks = [];
      this.when = Math.round((this.context.currentTime + 0.03) * this.rate);
      this.position = at * this.rate;
      this.continued = null; // where the last piece would go on
      this.jumped = false;
    }

    start(at) {
      this.begin(at);
      this.fill();
      this.filling = setInterval(() => this.fill(), 100);
    }

    stop() {
      clearInterval(this.filling);
      this.blocks.forEach(drop);
    }

    move(to) {
      this.stop();
      this.start(to);
    }

    /** Play on with other settings, from the end of the block that sounds. */
    changed() {
      const soon = (this.context.currentTime + 0.01) * this.rate;
      const dropped = this.blocks.filter(({ when }) => when >= soon);
      if (!dropped.length) return;
      dropped.forEach(drop);
      this.blocks = this.blocks.filter(({ when }) => when < soon);
      Object.assign(this, dropped[0].begun);
      this.when = dropped[0].when;
      this.fill();
    }

    now() {
      const time = this.context.currentTime * this.rate;
      const block = this.blocks.findLast(({ when }) => when <= time) ?? this.blocks[0];
      if (!block) return this.position / this.rate;
      return (block.begun.position + Math.max(0, time - block.when) * block.speed) / this.rate;
    }

    fill() {
      const time = this.context.currentTime * this.rate;
      this.blocks = this.blocks.filter((_, index) => !(this.blocks[index + 1]?.when < time)); // those before are over
      if (this.when < time) this.when = Math.round(time + 0.01 * this.rate); // the page was held up
      while (this.when < time + AHEAD * this.rate && this.position < this.end) this.add();
    }

    /** Schedule a block of pieces. */
    add() {
      const { when, speed, position, continued, jumped } = this;
      const pieces = this.pieces();
      const sources = this.tracks.map((track) => {
        const source = new AudioBufferSourceNode(this.context, { buffer: this.joined(track.buffer, pieces) });
        source.connect(track.node);
        source.start(when / this.rate);
        return source;
      });
      this.blocks.push({ sources, when, speed, begun: { position, continued, jumped } });
      this.when += pieces.reduce((sum, { length }) => sum + length, 0);
    }

    /** Return the pieces of the next block, which ends where the loop does, or the song. */
    pieces() {
      const found = [];
      let length = 0;
      do {
        found.push(this.piece());
        length += found.at(-1).length;
      } while (length < this.block && !this.jumped && this.position < this.end);
      return found;
    }

    piece() {
      const { speed, continued, fade } = this;
      const follows = continued !== null && !this.jumped;
      const position = speed === 1 && follows ? continued : this.position;
      const end = this.loop ? this.loop.end * this.rate : 0;
      let length = speed === 1 ? this.plain : this.stretched;
      // The last piece of a loop is up to a fade longer, for none is shorter than that.
      this.jumped = position < end && position + (length + fade) * speed >= end;
      if (this.jumped) length = Math.max(1, Math.round((end - position) / speed));
      const early = ((speed - 1) * length) / 2; // the middle of a piece is to be where it belongs
      const from = speed !== 1 && follows ? this.alike(position + early, continued) : Math.round(position);
      this.position = this.jumped ? this.loop.start * this.rate : position + length * speed;
      this.continued = from + length;
      return { from, length, before: continued };
    }

    /** Return pieces of a sound, each faded in over what the one before would go on with. */
    joined(sound, pieces) {
      const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
      const joined = new AudioBuffer({ numberOfChannels: sound.numberOfChannels, length, sampleRate: this.rate });
      for (let channel = 0; channel < sound.numberOfChannels; channel++) {
        const [samples, out] = [sound.getChannelData(channel), joined.getChannelData(channel)];
        let at = 0;
        for (const { from, length, before } of pieces) {
          out.set(samples.subarray(from, from + length), at);
          const faded = before === null || before === from ? 0 : Math.min(this.fade, length);
          for (let index = 0; index < faded; index++) {
            const old = samples[before + index] ?? 0;
            out[at + index] = old + this.rise[index] * (out[at + index] - old);
          }
          at += length;
        }
      }
      return joined;
    }

    /** Return the position near `wanted` whose sound is most like the one at `continued`. */
    alike(wanted, continued) {
      const { fade, reach } = this;
      const start = Math.max(0, Math.round(wanted) - reach);
      const sought = this.heard(continued, fade);
      if (!sought.some((value) => Math.abs(value) > 1e-4)) return start + reach; // in silence all is alike
      const within = this.heard(start, 2 * reach + fade);
      const near = COARSE * bestMatch(coarser(sought), coarser(within), 0, Math.floor((2 * reach) / COARSE) - 1);
      return start + bestMatch(sought, within, Math.max(0, near - COARSE), Math.min(2 * reach, near + COARSE));
    }

    /** Return samples of the sum of all tracks as they are played. */
    heard(start, length) {
      const sum = new Float32Array(length);
      for (const { buffer, node } of this.tracks) {
        const gain = node.gain.value;
        if (gain < 1e-3) continue;
        for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
          const samples = buffer.getChannelData(channel).subarray(start, start + length);
          for (let index = 0; index < samples.length; index++) sum[index] += gain * samples[index];
        }
      }
      return sum;
    }
  }

  /** Long tracks, decoded as they play: in step to some hundredths of a second. The browser keeps their pitch. */
  class Streamed {
    speed = 1;
    loop = null;

    constructor(context, tracks) {
      Object.assign(this, { context, tracks });
    }

    async open() {
      const load = async (track) => {
        const blob = await (await fetch(track.sound.src)).blob();
        track.sound.src = URL.createObjectURL(blob);
        track.sound.preload = "auto";
        track.sound.preservesPitch = true;
        this.context.createMediaElementSource(track.sound).connect(track.node);
        await new Promise((resolve, reject) => {
          track.sound.oncanplay = resolve;
          track.sound.onerror = () => reject(track.sound.error);
          track.sound.load();
        });
      };
      await Promise.all(this.tracks.map(load));
    }

    start(at, tell) {
      this.changed();
      this.move(at);
      // A pause that comes before the sound does ends the promise, which is as it should be.
      const failed = (error) => error.name === "AbortError" || tell(error.message);
      for (const { sound } of this.tracks) sound.play().catch(failed);
      this.following = setInterval(() => this.follow(), 2000);
      this.looping = setInterval(() => this.repeat(), 20);
    }

    follow() {
      for (const { sound } of this.tracks) {
        if (Math.abs(sound.currentTime - this.now()) > APART) sound.currentTime = this.now();
      }
    }

    repeat() {
      const now = this.now();
      if (this.loop && this.before < this.loop.end && now >= this.loop.end) this.move(this.loop.start);
      else this.before = now;
    }

    changed() {
      for (const { sound } of this.tracks) sound.playbackRate = this.speed;
    }

    move(to) {
      this.before = to;
      for (const { sound } of this.tracks) sound.currentTime = to;
    }

    stop() {
      clearInterval(this.following);
      clearInterval(this.looping);
      for (const { sound } of this.tracks) sound.pause();
    }

    now() {
      return this.tracks[0].sound.currentTime;
    }
  }

  return { Decoded, Streamed };
})();
