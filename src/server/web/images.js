// Pictures on their way to the server: checked, made smaller when huge, turned into data: URLs. A picture within the limits is
// sent byte for byte, so that the model sees what the file holds.

export const kLimits = { count: 16, file_bytes: 20 << 20, side: 4096, pixels: 16e6, total_chars: 28 << 20 };
const kSent = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]);  // what the server decodes
export const kAccept = "image/png,image/jpeg,image/webp,image/gif,image/bmp,image/avif";

// By content: the type that a browser reports comes from the file's name.
function sniff(bytes) {
  const text = String.fromCharCode(...bytes.slice(0, 16));
  if (text.startsWith("\x89PNG")) return "image/png";
  if (text.startsWith("\xff\xd8\xff")) return "image/jpeg";
  if (text.startsWith("GIF8")) return "image/gif";
  if (text.startsWith("BM")) return "image/bmp";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "image/webp";
  if (/^....ftypavi[fs]/s.test(text)) return "image/avif";
  return "";
}

const data_url = (blob) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(new Error("cannot be read"));
  reader.readAsDataURL(blob);
});

async function redrawn(bitmap, scale, type) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
  if (!blob) throw new Error("cannot be made smaller");
  return blob;
}

// {url, name, width, height, note} for one file; throws an Error whose message completes "NAME ...".
export async function prepare_image(file) {
  const type = sniff(new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  if (!type) throw new Error("is not a PNG, JPEG, WebP, GIF, BMP or AVIF picture");
  if (file.size > 8 * kLimits.file_bytes) throw new Error("is too large");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("is damaged or of a kind that this browser does not read");
  }
  try {
    const { width, height } = bitmap;
    const scale = Math.min(1, kLimits.side / Math.max(width, height), Math.sqrt(kLimits.pixels / (width * height)));
    let blob = file.slice(0, file.size, type), note = "";
    if (scale < 1 || file.size > kLimits.file_bytes / 4 || !kSent.has(type)) {
      blob = await redrawn(bitmap, scale, type === "image/jpeg" || file.size > kLimits.file_bytes / 4 ? "image/jpeg" : "image/png");
      note = scale < 1 ? `made smaller, from ${width} \u00d7 ${height}` : "stored again as " + blob.type.slice(6).toUpperCase();
    }
    return { url: await data_url(blob), name: file.name || "picture", width: Math.round(width * scale), height: Math.round(height * scale), note };
  } finally {
    bitmap.close();
  }
}

// Pictures among what was pasted or dropped.
export function image_files(transfer) {
  const files = [...(transfer?.files || [])];
  return files.filter((file) => file.type.startsWith("image/") || /\.(png|jpe?g|webp|gif|bmp|avif)$/i.test(file.name));
}
