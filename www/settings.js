// The settings form and the link that carries it. Whatever comes from a link is checked and clamped.

const NUMBERS = {
  temperature: { min: 0, max: 2, step: 0.05, value: 0.8 },
  topK: { min: 0, max: 200, step: 1, value: 40 },
  topP: { min: 0.05, max: 1, step: 0.01, value: 0.95 },
  minP: { min: 0, max: 0.5, step: 0.01, value: 0.05 },
  repeatPenalty: { min: 1, max: 2, step: 0.01, value: 1.1 },
  sinks: { min: 0, max: 64, step: 1, value: 4 },
  window: { min: 16, max: 8192, step: 1, value: 252 },
};
/** Of the chat alone. An empty memory is what fills the model's context. */
const CHAT = {
  memory: { min: 16, max: 131_072, step: 1, value: "" },
  answer: { min: 1, max: 16_384, step: 1, value: 2048 },
};
const CHOICES = { policy: ["streaming", "window"], kv: ["f16", "f32"] };
/** How many may be side by side. */
export const STORIES = [2, 3, 4, 6, 8];
const THINK = { auto: undefined, on: true, off: false };
const SAMPLING = ["temperature", "topK", "topP", "minP", "repeatPenalty"];
const PROMPT_MAX = 4000;
const SYSTEM_MAX = 20_000;
export const PROMPT = "Once upon a time";

const clamp = (value, { min, max, step, value: normal }) => {
  const n = typeof value === "string" && value.trim() === "" ? NaN : Number(value);
  if (!Number.isFinite(n)) return normal;
  const snapped = min + Math.round((Math.min(max, Math.max(min, n)) - min) / step) * step;
  return Number(snapped.toFixed(4));
};

const seedOf = (value) => (/^\s*\d{1,10}\s*$/.test(value) && Number(value) <= 0xffffffff ? Number(value) : null);

const NAME = /^hf:[\w.-]+\/[\w.-]+(:[\w./-]+)?$/; // a model at the hub, as the package knows it

const modelOf = (value) => {
  if (NAME.test(value)) return value;
  try {
    const url = new URL(value);
    const near = ["localhost", "127.0.0.1"].includes(url.hostname);
    return url.protocol === "https:" || (url.protocol === "http:" && near) ? url.href : "";
  } catch {
    return "";
  }
};

const stopsOf = (value) =>
  value
    .split("\n")
    .filter(Boolean)
    .slice(0, 8)
    .map((s) => s.slice(0, 100));

/** What a hash says, all of it valid; names that are not there are left out. */
export const parseLink = (hash) => {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const link = {};
  for (const name of Object.keys(NUMBERS)) {
    if (query.has(name)) link[name] = clamp(query.get(name), NUMBERS[name]);
  }
  for (const name of Object.keys(CHOICES)) {
    if (CHOICES[name].includes(query.get(name))) link[name] = query.get(name);
  }
  if (query.has("prompt")) link.prompt = query.get("prompt").slice(0, PROMPT_MAX);
  if (query.has("stop")) link.stop = stopsOf(query.get("stop")).join("\n");
  for (const name of Object.keys(CHAT)) {
    if (query.has(name)) link[name] = clamp(query.get(name), CHAT[name]);
  }
  if (query.has("system")) link.system = query.get("system").slice(0, SYSTEM_MAX);
  if (STORIES.includes(Number(query.get("stories")))) link.stories = Number(query.get("stories"));
  if (query.has("beside")) link.way = "beside";
  else if (query.has("prompt") || query.has("stream")) link.way = "stream";
  else if (query.has("system") || query.has("chat")) link.way = "chat";
  const seed = seedOf(query.get("seed") ?? "");
  if (seed !== null) link.seed = seed;
  const model = modelOf(query.get("model") ?? "");
  if (model) link.model = model;
  return link;
};

const writeLink = ({ prompt, stories, seed, model, stop, ...rest }) => {
  const query = new URLSearchParams(stories ? { beside: "", prompt, stories } : { prompt });
  if (seed !== null) query.set("seed", seed);
  for (const [name, value] of Object.entries(rest)) {
    const normal = NUMBERS[name]?.value ?? CHOICES[name][0];
    if (value !== normal) query.set(name, value);
  }
  if (stop.length) query.set("stop", stop.join("\n"));
  if (model) query.set("model", model);
  return `#${query}`;
};

/** A link that opens a chat with this system prompt. */
export const linkToChat = (system, model) => {
  const query = new URLSearchParams({ system });
  if (model) query.set("model", model);
  return `${location.href.replace(/[?#].*$/, "")}#${query}`;
};

export const createSettings = (form, prompt) => {
  const field = (name) => form.elements[name];
  let drawn = false; // the seed was chosen here, not by the visitor
  let own = new Set(); // what the visitor, or a link, has set
  let suggested = {}; // what the model's file says
  let fixed = null; // the cache of a server, which is what it is

  const show = (name) => {
    const output = form.querySelector(`output[for="${name}"]`);
    if (output) output.textContent = field(name).value;
  };

  const set = (name, value) => {
    field(name).value = value;
    show(name);
  };

  const note = () => {
    form.querySelector("#seed-note").textContent =
      field("seed").value === ""
        ? "Empty: a new one each time."
        : seedOf(field("seed").value) === null
          ? "A whole number up to 4294967295; this one is ignored."
          : drawn
            ? "Drawn at random; a new one each time."
            : "Kept until you change it.";
  };

  const defaults = () => {
    own = new Set();
    for (const [name, { value }] of Object.entries({ ...NUMBERS, ...CHAT })) set(name, suggested[name] ?? value);
    set("think", "auto");
    for (const [name, [first]] of Object.entries(CHOICES)) set(name, first);
    for (const [name, value] of Object.entries(fixed ?? {})) set(name, value);
    if (fixed) set("memory", fixed.window);
    set("seed", "");
    set("stop", "");
    drawn = false;
    note();
  };

  for (const [name, { min, max, step }] of Object.entries({ ...NUMBERS, ...CHAT }))
    Object.assign(field(name), { min, max, step });
  defaults();

  form.addEventListener("input", ({ target }) => {
    if (target.name === "seed") drawn = false;
    own.add(target.name);
    note();
    show(target.name);
  });
  form.addEventListener("change", ({ target }) => {
    const range = NUMBERS[target.name] ?? CHAT[target.name];
    if (range) set(target.name, clamp(target.value, range));
  });
  form.addEventListener("submit", (event) => event.preventDefault());

  const number = (name) => clamp(field(name).value, NUMBERS[name]);
  const seed = () => seedOf(field("seed").value);

  const shared = () => {
    const stop = stopsOf(field("stop").value);
    return {
      ...Object.fromEntries(SAMPLING.map((name) => [name, number(name)])),
      seed: seed(),
      ...(stop.length && { stop }),
    };
  };

  return {
    defaults,
    /** What the model's file says of sampling, for what the visitor has not set. */
    suggest(sampling) {
      suggested = {};
      for (const name of SAMPLING) {
        if (!Number.isFinite(sampling?.[name])) continue;
        suggested[name] = clamp(sampling[name], NUMBERS[name]);
        if (!own.has(name)) set(name, suggested[name]);
      }
    },
    /** What a conversation is made with, and how long its answers may be. */
    chat: () =>
      fixed
        ? {}
        : {
            ...(field("memory").value && { window: clamp(field("memory").value, CHAT.memory) }),
            kv: field("kv").value,
          },
    answer: () => {
      const { seed, ...sampling } = shared();
      const think = THINK[field("think").value];
      return {
        ...sampling,
        ...(seed !== null && !drawn && { seed }), // a stream's is not this answer's
        maxTokens: clamp(field("answer").value, CHAT.answer),
        ...(think !== undefined && { think }),
      };
    },
    get policy() {
      return field("policy").value;
    },
    set policy(value) {
      set("policy", value);
    },
    cache: () =>
      fixed
        ? { policy: field("policy").value }
        : {
            policy: field("policy").value,
            sinks: field("policy").value === "streaming" ? number("sinks") : 0,
            window: number("window"),
            kv: field("kv").value,
          },
    sampling: shared,
    /** The cache is a server's: it is shown, and cannot be another. */
    fix({ sinks, window, kv }) {
      fixed = { sinks, window, kv };
      if (![...field("kv").options].some(({ value }) => value === kv)) field("kv").append(new Option(kv, kv));
      for (const [name, value] of Object.entries({ ...fixed, memory: window })) {
        Object.assign(field(name), { min: 0, max: "", disabled: true });
        set(name, value);
      }
    },
    /** A seed the link can name: the visitor's, or a new one, which is shown. */
    drawSeed(keep = false) {
      if (drawn || seed() === null) {
        set("seed", crypto.getRandomValues(new Uint32Array(1))[0]);
        drawn = !keep;
        note();
      }
      return seed();
    },
    fill(link) {
      for (const name of [...Object.keys(NUMBERS), ...Object.keys(CHAT), ...Object.keys(CHOICES), "stop", "seed"]) {
        if (field(name).disabled) continue;
        if (name in link) set(name, link[name]);
        if (name in link) own.add(name);
      }
      // A text can be replayed only with what it was made with: a link leaves out what is usual.
      if ("prompt" in link) for (const name of SAMPLING) own.add(name);
      if ("seed" in link) drawn = false;
      if ("prompt" in link) prompt.value = link.prompt;
      note();
    },
    /** `beside`: the prompt and the number of stories side by side; else it is a link to the stream. */
    link(model, beside = { prompt: prompt.value }) {
      const names = [...Object.keys(NUMBERS), ...Object.keys(CHOICES)];
      const values = Object.fromEntries(names.map((n) => [n, NUMBERS[n] ? number(n) : field(n).value]));
      const base = location.href.replace(/[?#].*$/, "");
      return (
        base +
        writeLink({
          ...beside,
          seed: seed(),
          model,
          stop: stopsOf(field("stop").value),
          ...values,
        })
      );
    },
    modelOf,
  };
};
