"""The blinded panel as a page: one HTML file that a person opens, grades by keyboard, and exports votes from.

The page holds pictures and numbers, nothing else: no id, no kind, no order but the panel's own. The key stays apart.
What is graded is kept in the browser until it is exported; nothing is sent anywhere.
"""

from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image

from lens_assets.science.realism.panel import CROP, Panel, colour_image

ZOOM = 6
"""Screen pixels a stamp pixel, without smoothing."""
GRADES = ("surely a real lens", "rather real", "rather an injection", "surely an injection")
"""Grades 0 to 3; a grade k votes k/3 for an injection."""

_STYLE = """
:root{--ink:#1c2430;--dim:#5b6675;--line:#d8dde4}
*{box-sizing:border-box}body{margin:0 auto;max-width:900px;padding:20px;color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:22px;margin:0}p{margin:6px 0}.dim{color:var(--dim)}
#view{display:flex;gap:24px;flex-wrap:wrap;margin:14px 0}
#view img{width:390px;max-width:100%;aspect-ratio:1;image-rendering:pixelated;background:#000}
#grades{display:flex;flex-direction:column;gap:8px;min-width:230px}
button{font:inherit;padding:8px 12px;border:1px solid var(--line);border-radius:8px;background:#f5f7f9;color:var(--ink);
text-align:left;cursor:pointer}button.on{background:#1f5fa8;border-color:#1f5fa8;color:#fff}
button:focus-visible{outline:3px solid #e0a100}kbd{border:1px solid var(--line);border-radius:4px;padding:0 6px;background:#fff;
color:var(--ink)}
#all{display:grid;grid-template-columns:repeat(auto-fill,minmax(40px,1fr));gap:4px;margin:14px 0}
#all button{padding:4px 0;text-align:center;font-size:13px}#all .done{background:#dcefe0}#all .now{outline:2px solid #1f5fa8}
input{font:inherit;padding:6px 8px;border:1px solid var(--line);border-radius:8px}
"""
_SCRIPT = """
const P=JSON.parse(document.getElementById("panel").textContent),n=P.stamps.length,key="panel-"+P.panel;
let votes={},at=0;const el=i=>document.getElementById(i);
try{votes=JSON.parse(localStorage.getItem(key)||"{}");el("name").value=localStorage.getItem(key+"-name")||""}catch(e){}
function save(){try{localStorage.setItem(key,JSON.stringify(votes));localStorage.setItem(key+"-name",el("name").value)}catch(e){}}
function show(){el("stamp").src="data:image/png;base64,"+P.stamps[at];el("number").textContent="Stamp "+(at+1)+" of "+n;
document.querySelectorAll("#grades button").forEach((b,k)=>b.classList.toggle("on",votes[at+1]===k));
document.querySelectorAll("#all button").forEach((b,i)=>{b.className=(votes[i+1]!==undefined?"done ":"")+(i===at?"now":"")});
el("count").textContent=Object.keys(votes).length+" of "+n+" graded"}
function grade(k){votes[at+1]=k;save();if(at<n-1)at++;show()}
function go(d){at=Math.min(n-1,Math.max(0,at+d));show()}
P.grades.forEach((g,k)=>{const b=document.createElement("button");b.innerHTML="<kbd>"+k+"</kbd> "+g;b.onclick=()=>grade(k);
el("grades").append(b)});
P.stamps.forEach((_,i)=>{const b=document.createElement("button");b.textContent=i+1;b.title="stamp "+(i+1);
b.onclick=()=>{at=i;show()};el("all").append(b)});
document.addEventListener("keydown",e=>{if(e.target.tagName==="INPUT"||e.ctrlKey||e.metaKey||e.altKey)return;
if("0123".includes(e.key)&&e.key.length===1){grade(+e.key);e.preventDefault()}
else if(e.key==="ArrowRight")go(1);else if(e.key==="ArrowLeft")go(-1);
else if(e.key==="Backspace"||e.key==="Delete"){delete votes[at+1];save();show();e.preventDefault()}});
function give(name,type,body){const a=document.createElement("a");a.href=URL.createObjectURL(new Blob([body],{type}));
a.download=name;a.click();setTimeout(()=>URL.revokeObjectURL(a.href),1e3)}
function who(){return el("name").value.trim()||"anonymous"}
function file(ext){return "votes-"+P.panel+"-"+who().replace(/[^A-Za-z0-9_-]+/g,"_")+ext}
el("json").onclick=()=>give(file(".json"),"application/json",JSON.stringify({panel:P.panel,grader:who(),grades:votes},null,1)+"\\n");
el("csv").onclick=()=>{let rows="panel,grader,number,grade\\n";const g='"'+who().replace(/"/g,'""')+'"';
for(let i=1;i<=n;i++)if(votes[i]!==undefined)rows+=P.panel+","+g+","+i+","+votes[i]+"\\n";give(file(".csv"),"text/csv",rows)};
el("name").oninput=save;show();
"""


def panel_page(panel: Panel) -> str:
    """The page as text of one HTML file; the same panel gives the same bytes."""
    content = {"panel": panel.digest, "grades": list(GRADES), "stamps": [_png(image) for image in panel.images]}
    data = json.dumps(content, separators=(",", ":")).replace("</", "<\\/")
    size = (2 * CROP + 1) * 0.262
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Blinded panel</title>'
        f"<style>{_STYLE}</style></head><body><h1>Real lens or injection?</h1>"
        f'<p>Panel <code>{panel.digest}</code>. {size:.0f} arcsec on a side; g, r, z as blue, green, red; north up. Keys '
        "<kbd>0</kbd> to <kbd>3</kbd> grade and go on, arrows move, <kbd>Backspace</kbd> takes a grade back. Grade before you "
        "look at any report on these stamps.</p>"
        '<div id="view"><img id="stamp" alt="the stamp to grade"><div><p id="number"></p><div id="grades"></div></div></div>'
        '<p id="count" class="dim" aria-live="polite"></p><div id="all"></div>'
        '<p><label>Your name <input id="name" autocomplete="off"></label> '
        '<button id="json">Export votes (JSON)</button> <button id="csv">Export votes (CSV)</button></p>'
        '<p class="dim">Grades stay in this browser until they are exported.</p>'
        f'<script type="application/json" id="panel">{data}</script><script>{_SCRIPT}</script></body></html>\n'
    )  # fmt: skip


def _png(image: np.ndarray) -> str:  # type: ignore[type-arg]
    side = min(image.shape[1:])
    low, high = max(side // 2 - CROP, 0), side // 2 + CROP + 1
    picture = np.kron(colour_image(image[:, low:high, low:high]), np.ones((ZOOM, ZOOM, 1), np.uint8))
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
