// A short sound at the end of one's own job, for those who look elsewhere.

/** @type {AudioContext | null} */
let audio = null;

/** @param {boolean} isGood two notes up, or one down */
export function chime(isGood) {
  try {
    audio ??= new AudioContext();
    note(audio, isGood ? 660 : 330, 0);
    note(audio, isGood ? 880 : 247, 0.14);
  } catch {
    // A browser without sound, or one that waits for a first click.
  }
}

/** @param {AudioContext} context @param {number} hertz @param {number} delay */
function note(context, hertz, delay) {
  const start = context.currentTime + delay;
  const source = new OscillatorNode(context, { frequency: hertz, type: "sine" });
  const volume = new GainNode(context, { gain: 0 });
  volume.gain.linearRampToValueAtTime(0.15, start + 0.02);
  volume.gain.exponentialRampToValueAtTime(0.001, start + 0.3);
  source.connect(volume).connect(context.destination);
  source.start(start);
  source.stop(start + 0.32);
}
