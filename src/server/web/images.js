// Pictures on their way to the server: checked, made smaller when huge, turned into data: URLs. A picture within the limits is
// sent byte for byte, so that the model sees what the file holds.

const kMaxImages = 16, kMaxPixelSum = 134e6, kMaxChars = 28 << 20;  // of all in one request, as the server has it
export const kMaxSide = 4096;
const kMaxBytes = 5 << 20, kMaxPixels = 16e6, kMaxFile = 160 << 20;
export const kAccept = "image/png,image/jpeg,image/webp,image/gif,image/bmp";
// By content: the type that a browser reports comes from the file's name.
const kKinds = [[/^\x89PNG/, "image/png"], [/^\xff\xd8\xff/, "image/jpeg"], [/^GIF8/, "image/gif"], [/^BM/, "image/bmp"], [/^RIFF[^]{4}WEBP/, "image/webp"]];

async function redrawn(bitmap, scale, type) {
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  context.imageSmoothingQuality = "high";
  if (type === "image/jpeg") {  // it has no transparency, which would turn black
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
  if (!blob) throw new Error("cannot be made smaller");
  return blob;
}

// Why a request cannot take these pictures; "" if it can. Every request carries those of the whole branch.
export function too_much(images) {
  const sum = (f) => images.reduce((all, image) => all + f(image), 0);
  return images.length > kMaxImages ? `At most ${kMaxImages} pictures in one chat` : sum(({ pixels }) => pixels || 0) > kMaxPixelSum ? "The pictures of this chat have too many pixels together" :
    sum(({ url }) => url.length) > kMaxChars ? "The pictures of this chat are too large together" : "";
}

// {url, name, note, pixels} for one file; throws an Error whose message completes "NAME ...".
export async function prepare_image(file) {
  const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  const type = kKinds.find(([start]) => start.test(head))?.[1];
  if (!type) throw new Error("is not a PNG, JPEG, WebP, GIF or BMP picture");
  if (file.size > kMaxFile) throw new Error("is too large");
  const bitmap = await createImageBitmap(file).catch(() => { throw new Error("is damaged or of a kind that this browser does not read"); });
  const { width, height } = bitmap, scale = Math.min(1, kMaxSide / Math.max(width, height), Math.sqrt(kMaxPixels / (width * height)));
  let blob = file.slice(0, file.size, type), note = "";
  if (scale < 1 || file.size > kMaxBytes) {
    blob = await redrawn(bitmap, scale, file.size > kMaxBytes ? "image/jpeg" : "image/png");
    note = scale < 1 ? `made smaller, from ${width} \u00d7 ${height}` : `stored again as ${blob.type.slice(6)}`;
  }
  bitmap.close();
  const reader = new FileReader();
  reader.readAsDataURL(blob);
  await new Promise((resolve) => { reader.onloadend = resolve; });
  if (!reader.result) throw new Error("cannot be read");
  return { url: reader.result, name: file.name, note, pixels: Math.round(width * height * scale * scale) };
}

// Pictures among what was pasted or dropped.
export const image_files = (transfer) => [...(transfer?.files || [])].filter((file) => file.type.startsWith("image/") || /\.(png|jpe?g|webp|gif|bmp)$/i.test(file.name));
