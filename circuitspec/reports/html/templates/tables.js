"use strict";
// A click on the head of a column sorts its table by it, a second click the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const body = table.tBodies[0];
  heads.forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
      const key = (row) => row.cells[place].textContent.trim();
      const value = (text) => parseFloat(text.replace(/^~/, ""));
      const rows = [...body.rows].map((row) => [key(row), row]);
      const numbers = rows.some(([text]) => !Number.isNaN(value(text)));
      rows.sort(([one], [other]) => {
        const [a, b] = [value(one), value(other)];
        if (!numbers) return -down * one.localeCompare(other);
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return down * (a - b);
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
      body.append(...rows.map(([, row]) => row));
    });
  });
}
