// What jsqr reads in each SVG of a JSON list on standard input. Draws what the pictures are made of, and refuses all else.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const beside = createRequire(join(process.env.SDK_NODE_MODULES, "..", "beside.js"));
const jsqr = beside("jsqr");
const PIXELS = 4;

function read(svg) {
  const whole = /^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" viewBox="0 0 (\d+) \1" shape-rendering="crispEdges"><path fill="#fff" d="M0 0h\1v\1H0z"\/><path fill="#000" d="((?:M\d+ \d+h\d+v1h-\d+z)+)"\/><\/svg>$/.exec(svg);
  if (!whole) throw new Error(`another picture: ${svg.slice(0, 200)}`);
  const side = Number(whole[1]) * PIXELS;
  const pixels = new Uint8ClampedArray(side * side * 4).fill(255);
  for (const [, x, y, width, back] of whole[2].matchAll(/M(\d+) (\d+)h(\d+)v1h-(\d+)z/g)) {
    if (width !== back) throw new Error("a path that does not come back");
    for (let row = y * PIXELS; row < (Number(y) + 1) * PIXELS; row++)
      for (let column = x * PIXELS; column < (Number(x) + Number(width)) * PIXELS; column++)
        pixels.fill(0, (row * side + column) * 4, (row * side + column) * 4 + 3);
  }
  return (jsqr.default ?? jsqr)(pixels, side, side)?.data ?? null;
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(read)));
