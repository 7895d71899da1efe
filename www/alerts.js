// Errors as a calm card: what was wrong, and what to do next.

const CARDS = {
  // which browsers can is for the package to say
  "no-webgpu": { title: "This browser cannot stream here" },
  "no-adapter": {
    title: "No graphics adapter answered",
    action: "Try again",
    help: "Look whether graphics acceleration is switched on in the browser's settings, and try again.",
  },
  "device-lost": {
    title: "The graphics device went away",
    action: "Load again",
    help: "The text so far is safe. Loaded again, the model goes on from the last lines.",
    chat: "The conversation is safe. Loaded again, the model is told it anew.",
    beside: "What was written can still be copied. Loaded again, the stories begin anew.",
  },
  "out-of-memory": {
    title: "The graphics memory was not enough",
    action: "Try again",
    help: "A smaller window, f16 keys or a smaller model needs less; closing other tabs may help too.",
    beside: "Fewer stories, a smaller window or a smaller model needs less; closing other tabs may help too.",
  },
  "bad-model": {
    title: "This model cannot be read",
    help: "Choose another file, or go back to the default model.",
  },
  unsupported: {
    title: "This model asks for more than brooklet does",
    help: "Choose another file, or go back to the default model.",
  },
  network: {
    title: "The model did not arrive",
    action: "Try again",
    help: "What has arrived so far is kept, and the next try goes on from there.",
  },
  disconnected: {
    title: "The engine cannot be reached",
    action: "Connect again",
    help: "The text so far is safe. See that brooklet is running.",
    chat: "The conversation is safe. Connected again, the model is told it anew.",
    beside: "What was written can still be copied. Connected again, the stories begin anew.",
  },
  "bad-option": {
    title: "A setting cannot work",
    help: "Change it under Settings and start again.",
    chat: "Change it, here or under Settings, and send the message again.",
    action: "Try again",
    of: "chat",
  },
  "no-template": {
    title: "This model is not made for conversations",
    action: "Let it stream",
    help: "It has no chat template. It can go on with a text that you begin; a model for conversations is under Model.",
  },
  internal: {
    title: "Something went wrong inside",
    action: "Try again",
    help: "The text so far is safe.",
    chat: "The conversation is safe.",
    beside: "What was written can still be copied; the stories begin anew.",
  },
  insecure: {
    title: "This page needs a secure address",
    help: "Browsers offer WebGPU to pages opened by https:// or from localhost alone.",
  },
};

const make = (tag, text, className = "") => {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
};

export const createAlert = (node) => {
  const hide = () => {
    node.hidden = true;
    node.replaceChildren();
  };

  return {
    hide,
    /** A way other than the stream may have words of its own. */
    show({ code = "internal", message = "" }, retry, way = "stream") {
      const lost = code === "network" && document.documentElement.hasAttribute("data-server");
      const card = lost ? CARDS.disconnected : (CARDS[code] ?? CARDS.internal);
      const buttons = make("div", "", "row");
      const help = card[way] ?? card.help;
      if (card.action && retry && (card.of ?? way) === way) {
        const again = make("button", card.action);
        again.type = "button";
        again.dataset.testid = "retry";
        again.addEventListener("click", () => {
          hide();
          retry();
        });
        buttons.append(again);
      }
      if (code !== "no-webgpu" && code !== "insecure") {
        const close = make("button", "Dismiss", "quiet");
        close.type = "button";
        close.addEventListener("click", hide);
        buttons.append(close);
      }
      node.dataset.code = code;
      node.replaceChildren(
        make("h2", card.title),
        ...(message ? [make("p", message)] : []),
        ...(help ? [make("p", help, "help")] : []),
        ...(buttons.childElementCount ? [buttons] : []),
      );
      node.hidden = false;
    },
    /** A remark that is no error of the engine. */
    say(title, message) {
      this.show({ code: "bad-option", message });
      node.querySelector("h2").textContent = title;
      node.querySelector(".help").remove();
    },
  };
};
