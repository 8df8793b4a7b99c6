// The form for the API key, shown only when the server requires one. The key is kept in this tab (sessionStorage).

import { setKey } from "./api.js";
import { dialog, el } from "./dom.js";

let asking = null;

// Resolves to whether the user gave a key. `refused`: the last key was wrong. Concurrent requests share one form.
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
