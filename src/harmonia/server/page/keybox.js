// The API key, asked for only when the server wants one. It stays in this tab and goes when the tab does.

import { setKey } from "./api.js";
import { dialog, el } from "./dom.js";

let asking = null;

// Resolves to whether a key was given. `refused`: one was, and it was wrong. Several requests that need one share the question.
export function askKey(refused) {
  asking ??= new Promise((resolve) => {
    let given = false;
    const { box, body } = dialog("This memory is locked", {
      onclose: () => {
        asking = null;
        resolve(given);
      },
    });
    const input = el("input", { id: "key", type: "password", required: true, autocomplete: "off", placeholder: "hm-…" });
    body.append(
      el(
        "form",
        {
          class: "key-form",
          onsubmit: (event) => {
            event.preventDefault();
            setKey(input.value);
            given = true;
            box.close();
          },
        },
        el("label", { for: "key" }, "API key of this server"),
        input,
        refused ? el("p", { class: "reason", role: "alert" }, "The server does not know this key.") : null,
        el("p", { class: "status" }, "It is kept in this tab only, until you close it."),
        el("button", { type: "submit", class: "go" }, "Open"),
      ),
    );
    input.focus();
  });
  return asking;
}
