"use strict";
(function () {
  var read = null;
  function statistics() {
    if (!read) read = JSON.parse(document.getElementById("statistics").textContent);
    return read;
  }
  var tip = document.getElementById("tip");
  function size(n) {
    var units = ["B", "kB", "MB", "GB", "TB"], i = 0;
    while (n >= 999.5 && i < 4) { n /= 1000; i += 1; }
    return (i ? +n.toPrecision(3) : n) + " " + units[i];
  }
  function share(x) { return +(100 * x).toPrecision(3) + " %"; }
  function words(chart, column, row) {
    var layers = statistics().layers, label = layers.labels[column], lines;
    if (label === undefined) return null;
    if (chart === "layers" || chart === "published") {
      var kinds = layers.kinds[column], key = chart === "layers" ? "nbytes" : "published_nbytes";
      lines = ["layer " + label];
      Object.keys(kinds).forEach(function (kind) { lines.push(kind + ": " + size(kinds[kind][key] || 0)); });
      return lines.join("\n");
    }
    if (!layers.grid[row] || !layers.grid[row][column]) return null;
    var of = layers.grid[row][column];
    lines = ["layer " + label + ", " + layers.modules[row], size(of.nbytes)];
    if (of.published_nbytes !== undefined) lines.push("published: " + size(of.published_nbytes));
    if (of.relative_update !== undefined && of.relative_update !== null) lines.push("update: " + share(of.relative_update));
    if (of.share_same !== undefined && of.share_same !== null) lines.push("same: " + share(of.share_same));
    if (of.values && of.values.std !== null) lines.push("std: " + of.values.std.toPrecision(3));
    return lines.join("\n");
  }
  document.querySelectorAll(".chart").forEach(function (chart) {
    var svg = chart.querySelector(".plot svg");
    chart.addEventListener("mouseleave", function () { tip.hidden = true; });
    svg.addEventListener("mousemove", function (event) {
      var box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
      var x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      var text = words(chart.dataset.chart, Math.floor(x / svg.dataset.step), Math.floor((y - svg.dataset.top) / svg.dataset.row));
      tip.hidden = text === null;
      if (text === null) return;
      tip.textContent = text;
      tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
      tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
    });
  });
  document.querySelectorAll(".sortable th").forEach(function (head) {
    head.addEventListener("click", function () {
      var table = head.closest("table"), body = table.tBodies[0], up = head.dataset.up !== "1";
      table.querySelectorAll("th").forEach(function (th) { delete th.dataset.up; });
      head.dataset.up = up ? "1" : "0";
      Array.from(body.rows).sort(function (a, b) {
        var x = a.cells[head.cellIndex], y = b.cells[head.cellIndex];
        var order = x.dataset.v === undefined
          ? x.textContent.localeCompare(y.textContent, "en", { numeric: true })
          : y.dataset.v - x.dataset.v;
        return up ? order : -order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
})();
