// What lies where in the cache: token n < S is sink n, any other is in ring slot (n - S) mod N.
// The arrays are made once per cache and never grow.

export const createSlots = ({ sinks, window, ring }) => {
  const size = sinks + ring;
  const index = new Float64Array(size).fill(-1);
  const offset = new Float64Array(size).fill(-1);
  const text = new Array(size).fill("");
  let last = -1;

  const placeOf = (n) => (n < sinks ? n : sinks + ((n - sinks) % ring));

  return {
    sinks,
    window,
    ring,
    size,
    index,
    text,
    get last() {
      return last;
    },
    placeOf,
    /** `from` is where the token's text begins in everything shown so far; -1 where unknown. */
    put(n, string, from) {
      const place = placeOf(n);
      index[place] = n;
      text[place] = string;
      offset[place] = from;
      last = Math.max(last, n);
    },
    at(place) {
      if (place < 0 || place >= size || index[place] < 0) return null;
      const n = index[place];
      const kind = n < sinks ? "sink" : last - n < window ? "seen" : "unseen";
      return { n, text: text[place], offset: offset[place], kind };
    },
  };
};
