"use strict";
(() => {
  const root = document.documentElement;
  const value = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const isDark = () => value("color-scheme") === "dark";

  // Charts take the page's colours, also after the theme has changed.
  const holder = document.getElementById("charts");
  const charts = holder ? JSON.parse(holder.textContent) : [];
  const places = [...document.querySelectorAll(".live")];
  const colours = (layout) => {
    const axis = { gridcolor: value("--line"), linecolor: value("--soft"), tickcolor: value("--soft") };
    const mark = (each) => ({ ...each, line: { ...each.line, color: value("--soft") } });
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: value("--ink"), family: "system-ui, sans-serif", size: 12 },
      hoverlabel: { bgcolor: value("--card"), font: { color: value("--ink") } },
      xaxis: { ...layout.xaxis, ...axis },
      yaxis: { ...layout.yaxis, ...axis },
      shapes: (layout.shapes || []).map(mark),
    };
  };
  const draw = () => {
    for (const place of places) {
      // The blue is too dark on a dark page; the data has it as a colour only.
      const dark = (text) => (isDark() ? text.replaceAll('"#0072b2"', '"#56b4e9"') : text);
      const { data, layout } = JSON.parse(dark(JSON.stringify(charts[place.dataset.chart])));
      Plotly.react(place, data, colours(layout), { displayModeBar: false, responsive: true });
    }
  };
  if (places.length && typeof Plotly !== "undefined") {
    root.classList.add("scripted");
    for (const place of places) place.hidden = false;
    draw();
  }

  const theme = document.getElementById("theme");
  const label = () => { theme.textContent = isDark() ? "Light colours" : "Dark colours"; };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
    if (places.length) draw();
  });
  label();

  // A click on a column's name sorts the table by it, a second click the other way round.
  const key = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value === undefined) return cell.textContent;
    return cell.dataset.value === "" ? -Infinity : Number(cell.dataset.value);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
        rows.sort((a, b) => (rising ? 1 : -1) * order(key(a, column), key(b, column)));
        table.tBodies[0].append(...rows);
      });
    });
  }
  for (const input of document.querySelectorAll(".filter input")) {
    const rows = input.closest(".table").querySelectorAll("tbody tr");
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }
})();
