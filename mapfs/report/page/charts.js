// The charts: legend, slack by group, and what other page sizes would waste.

function drawLegend(legend) {
  let from = 0;
  legend.append(element("span", {}, "Slack %"));
  for (const [bound, colour] of report.shades) {
    const isLast = bound === 100;
    const swatch = element("span", { className: "step" }, isLast ? `≥ ${from}` : `< ${bound}`);
    paint(swatch, colour);
    legend.append(swatch);
    from = bound;
  }
}

// A table with bars: [name, files, size, allocated, slack] a row.
function drawBars(table, heading, groups) {
  const most = Math.max(1, ...groups.map((group) => group[4]));
  const head = ["Slack", "", "Files"].map((title) => element("th", { scope: "col" }, title));
  table.append(element("thead", {}, element("tr", {},
    element("th", { scope: "col" }, heading), ...head)));
  const body = element("tbody");
  for (const [name, files, , allocated, slack] of groups) {
    const share = shareOf(slack, allocated);
    const bar = element("span", { className: "bar" });
    bar.style.width = `${(100 * slack) / most}%`;
    bar.hidden = slack === 0;
    bar.style.backgroundColor = shade(share);
    body.append(element("tr", { title: `${exact(slack)} of ${exact(allocated)} bytes allocated` },
      element("th", { scope: "row" }, name),
      element("td", {}, human(slack), element("small", {}, percent(share))),
      element("td", { className: "track" }, bar),
      element("td", {}, exact(files))));
  }
  table.append(body);
}

// The curve of slack over page size; both axes are drawn in pixels, so that text keeps its size.
function drawWhatIf(holder, node) {
  const width = Math.max(260, holder.clientWidth);
  const height = 330;
  const frame = { left: 44, right: width - 12, top: 26, bottom: height - 34 };
  const points = slackOverPageSize(node);
  const [least, most] = [points[0], points.at(-1)].map((point) => Math.log2(point.pageSize));
  const [first, last] = [frame.left + 34, frame.right - 22];
  const x = (size) => first + ((Math.log2(size) - least) / (most - least)) * (last - first);
  const y = (share) => frame.bottom - share * (frame.bottom - frame.top);
  const chart = drawing("svg", { width, height, role: "img", "aria-label": inWords(points) });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) chart.append(...gridLine(frame, y(share), share));
  chart.append(drawing("polyline", {
    class: "curve", points: points.map((at) => `${x(at.pageSize)},${y(at.share)}`).join(" "),
  }));
  for (const point of points) {
    chart.append(...mark(x(point.pageSize), y(point.share), point, frame));
  }
  holder.replaceChildren(chart);
}

// With the page sizes that the report knows, and the one that the store has.
function slackOverPageSize(node) {
  const known = report.whatIf.map((pageSize, index) => [pageSize, node.at[index]]);
  if (isMapfs && !report.whatIf.includes(report.pageSize)) {
    known.push([report.pageSize, node.slack]);
    known.sort(([one], [other]) => one - other);
  }
  return known.map(([pageSize, slack]) => (
    { pageSize, slack, share: shareOf(slack, node.stored + slack) }));
}

function inWords(points) {
  return points.map((at) => `pages of ${short(at.pageSize)}: ${human(at.slack)} slack, `
    + percent(at.share)).join("; ");
}

function gridLine(frame, y, share) {
  return [
    drawing("line", { class: "grid", x1: frame.left, x2: frame.right, y1: y, y2: y }),
    drawing("text", { x: frame.left - 8, y: y + 4, "text-anchor": "end" }, `${100 * share} %`),
  ];
}

function mark(x, y, point, frame) {
  const isNow = isMapfs && point.pageSize === report.pageSize;
  const below = y < frame.top + 20 ? 22 : -11;
  return [
    drawing("circle", { class: "mark", cx: x, cy: y, r: 5, fill: shade(point.share) },
      drawing("title", {}, `${exact(point.slack)} bytes of slack (${percent(point.share)})`)),
    drawing("text", { class: "value", x, y: y + below, "text-anchor": "middle" },
      human(point.slack)),
    drawing("text", { class: isNow ? "now" : "", x, y: frame.bottom + 20, "text-anchor": "middle" },
      short(point.pageSize) + (isNow ? " now" : "")),
  ];
}
