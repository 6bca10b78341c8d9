"use strict";
(() => {
  const every = 5000, many = 1000, everyMany = 15000;
  const collator = new Intl.Collator("en", { numeric: true });
  const at = (id) => document.getElementById(id);
  const filter = at("q");
  let sort = null; // {column, down}

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key || cell.textContent;
  };

  function show() {
    const body = at("peers");
    if (!body) return;
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...body.rows];
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((w) => text.includes(w));
      shown += !row.hidden;
    }
    if (sort) {
      const keys = new Map(rows.map((r) => [r, key(r, sort.column)]));
      rows.sort((a, b) => collator.compare(keys.get(a), keys.get(b)) * (sort.down ? -1 : 1));
      body.replaceChildren(...rows);
    }
    at("count").textContent = shown + " of " + rows.length;
    document.querySelectorAll("th").forEach((th, i) => {
      if (sort && i === sort.column) th.setAttribute("aria-sort", sort.down ? "descending" : "ascending");
      else if (sort) th.removeAttribute("aria-sort");
    });
  }

  async function refresh() {
    if (document.hidden) return;
    try {
      const url = new URL(location);
      url.searchParams.delete("q");
      const answer = await fetch(url, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!at("peers") !== !fresh.getElementById("peers")) location.reload();
      for (const part of ["state", "node", "way", "heads", "peers"]) {
        const is = at(part), will = fresh.getElementById(part);
        if (is && will) is.replaceWith(document.adoptNode(will));
      }
      at("away").classList.remove("on");
      show();
    } catch {
      at("away").classList.add("on");
    }
  }

  if (filter) {
    filter.addEventListener("input", show);
    filter.form.addEventListener("submit", (e) => { e.preventDefault(); show(); });
    document.addEventListener("click", (e) => {
      const th = e.target.closest("th");
      if (!th) return;
      e.preventDefault();
      const column = th.cellIndex;
      sort = { column, down: sort !== null && sort.column === column && !sort.down };
      show();
    });
    at("go").hidden = true;
    show();
  }
  const again = async () => {
    await refresh();
    plan();
  };
  const plan = () => setTimeout(again, at("peers")?.rows.length > many ? everyMany : every);
  plan();
})();
