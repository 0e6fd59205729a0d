// Keeps a page of Lowtide up to date: reads its own address again, and replaces the parts marked with `data-live`.
(function () {
    "use strict";

    var PAUSE_MS = 5000;
    var box = document.getElementById("lowtide-refresh");
    var text = document.getElementById("lowtide-refresh-text");
    var button = document.getElementById("lowtide-pause");
    var paused = false;
    var timer = 0;

    if (!box) {
        return;
    }

    function show(problem) {
        box.querySelector(".status-dot").className = "status-dot" + (paused ? "" : problem ? " status-dot-error" : " status-dot-live");
        text.textContent = paused ? "Paused" : problem || "Updated " + new Date().toLocaleTimeString();
        button.textContent = paused ? "Continue" : "Pause";
    }

    function isSelected(part) {
        var selection = window.getSelection();
        return selection && !selection.isCollapsed && selection.containsNode(part, true);
    }

    // The focus stays where a person with a keyboard has it: on the same link.
    function replace(part, fresh) {
        var focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        part.innerHTML = fresh.innerHTML;
        part.hidden = fresh.hidden;
        if (focused !== null) {
            Array.prototype.some.call(part.querySelectorAll("a"), function (link) {
                var found = link.getAttribute("href") === focused;
                if (found) {
                    link.focus({preventScroll: true});
                }
                return found;
            });
        }
    }

    function take(html) {
        var fresh = new DOMParser().parseFromString(html, "text/html");
        document.querySelectorAll("[data-live]").forEach(function (part) {
            var other = fresh.getElementById(part.id);
            if (other && other.innerHTML !== part.innerHTML && !isSelected(part)) {
                replace(part, other);
            }
        });
    }

    function explain(reply) {
        if (reply.status === 401 || reply.redirected) {
            throw new Error("Log in again: reload the page");
        }
        if (reply.status === 404) {
            throw new Error("It does not exist any more");
        }
        if (!reply.ok) {
            throw new Error("Not available, status " + reply.status);
        }
        return reply.text();
    }

    function refresh() {
        var began = Date.now();
        if (document.hidden || paused) {
            return;
        }
        fetch(window.location.pathname + window.location.search, {credentials: "same-origin", signal: AbortSignal.timeout(30000)})
            .then(explain)
            .then(take)
            .then(function () { show(""); })
            .catch(function (error) { show(error.name === "Error" ? error.message : "Flower does not answer"); })
            .then(function () {
                // A page that is costly to make is asked for less often.
                schedule(Math.max(PAUSE_MS, 10 * (Date.now() - began)));
            });
    }

    function schedule(pause) {
        window.clearTimeout(timer);
        timer = window.setTimeout(refresh, pause);
    }

    button.addEventListener("click", function () {
        paused = !paused;
        show("");
        schedule(0);
    });
    document.addEventListener("visibilitychange", function () { schedule(0); });
    box.hidden = false;
    schedule(PAUSE_MS);
}());
